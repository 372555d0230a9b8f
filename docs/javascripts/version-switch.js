/* The version switch beside the title: the same page of another version where it has one, else its first page. */
(function () {
  var topic = document.querySelector(".md-header__topic");
  if (!topic || typeof manualVersions === "undefined") return;
  var base = JSON.parse(document.getElementById("__config").textContent).base;
  var home = new URL(base.replace(/\/?$/, "/"), location.href.replace(/[?#].*$/, ""));
  var here = decodeURIComponent(home.pathname).replace(/\/$/, "").split("/").pop();
  var page = location.pathname.slice(home.pathname.length) || "index.html";
  if (!manualVersions[here]) return; // the folder was renamed: where the others lie is not known
  var select = document.createElement("select");
  select.className = "version-switch";
  select.setAttribute("aria-label", "Version of the manual");
  Object.keys(manualVersions).forEach(function (name) {
    select.add(new Option(name, name, name === here, name === here));
  });
  select.addEventListener("change", function () {
    var known = manualVersions[select.value].indexOf(page) >= 0;
    location.href = new URL("../" + select.value + "/" + (known ? page : "index.html"), home).href;
  });
  topic.appendChild(select);
})();
