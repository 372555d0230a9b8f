// Small helpers for building elements; text is always set as text, never as HTML.

/** An element with properties (and attributes, under `attributes`) and children. */
export function element(tag, { attributes = {}, ...properties } = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** The element with this id. */
export const byId = id => document.getElementById(id);
