// The interface as a page, drawn from the server's own OpenAPI document.

import { byId, element } from "../dom.js";

const described = await (await fetch("../openapi.json")).json();
for (const [path, methods] of Object.entries(described.paths)) {
  for (const [method, { summary, parameters = [] }] of Object.entries(methods)) {
    const rows = parameters.map(({ name, in: where, description, schema }) => element("li", {},
      `${name} (${where}) ${schema.enum ? schema.enum.join(" | ") : schema.type ?? ""} ${description ?? schema.description ?? ""}` +
      `${schema.default === undefined ? "" : `, default ${JSON.stringify(schema.default)}`}`));
    byId("paths").append(element("section", {}, element("h2", {}, `${method.toUpperCase()} ${path}`), element("p", {}, summary ?? ""),
      element("ul", {}, ...rows)));
  }
}
