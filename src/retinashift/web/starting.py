"""What the page answers until gradio is there: that it is on its way, and how far."""

from __future__ import annotations

import html
import time

from retinashift.web.door import Receive, Scope, Send, answer

STAGES = ("opening the port", "loading the parts of the page", "drawing the page", "opening the page")

_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="1">
<title>RetinaShift is starting</title><style>
body{{background:#14171a;color:#d7dade;font:15px/1.6 system-ui,sans-serif;margin:0}}
body{{display:grid;place-items:center;height:100vh}}
main{{width:min(420px,86vw)}} h1{{font-size:20px;margin:0 0 4px;color:#e6e8ea}}
.bar{{height:8px;background:#2a2f35;border-radius:4px;overflow:hidden}}
.bar i{{display:block;height:100%;background:#5b9ab8}}
p{{color:#aab0b6;margin:6px 0}}</style>
<main><h1>RetinaShift</h1><p>for research, not for diagnosis</p>
<div class="bar" role="progressbar" aria-valuenow="{percent}"><i style="width:{percent}%"></i></div>
<p>{text}, {seconds:.0f} s. This page opens by itself; the checkpoint is loaded after that, in view.</p></main></html>
"""


class Starting:
    """ASGI application: one page that looks again every second; programs are told to come back."""

    def __init__(self) -> None:
        self.stage, self.began = 0, time.monotonic()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/" and scope["method"] in ("GET", "HEAD"):
            await answer(send, 200, self.page(), "text/html")
        else:
            await answer(send, 503, "the page is starting; ask again in a second", "text/plain", (b"retry-after", b"1"))

    def page(self) -> str:
        """The page as HTML."""
        text = html.escape(STAGES[self.stage])
        percent = round(100 * (self.stage + 0.5) / len(STAGES))
        return _PAGE.format(text=text, percent=percent, seconds=time.monotonic() - self.began)
