// The OpenAPI document for people: each route with its fields, an example to change and a button.
// Everything is put in as text, never as HTML.
"use strict";

function element(name, text, parent) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (parent) parent.append(made);
  return made;
}

function resolved(api, schema) {
  const path = schema && schema.$ref;
  return path ? path.slice(2).split("/").reduce((part, key) => part[key], api) : schema;
}

function kind(api, schema) {
  const known = resolved(api, schema) || {};
  const parts = known.anyOf || known.oneOf;
  if (parts) return parts.map((part) => kind(api, part)).join(" or ");
  if (known.type === "array") return "list of " + kind(api, known.items || {});
  const bounds = ["minimum", "maximum", "exclusiveMinimum", "maxLength", "pattern"]
    .filter((key) => known[key] !== undefined)
    .map((key) => `${key} ${known[key]}`);
  return [known.title && known.properties ? known.title : known.type || "anything", ...bounds].join(", ");
}

function fields(api, schema, parent) {
  const known = resolved(api, schema);
  for (const part of known.anyOf || known.oneOf || [known]) {
    const model = resolved(api, part);
    if (!model || !model.properties) continue;
    element("h4", model.title, parent);
    const list = element("ul", undefined, parent);
    for (const [name, field] of Object.entries(model.properties)) {
      const needed = (model.required || []).includes(name) ? " (needed)" : "";
      const item = element("li", undefined, list);
      element("code", name, item);
      const said = resolved(api, field).description || field.description;
      item.append(`${needed}: ${kind(api, field)}${said ? ". " + said : ""}`);
    }
  }
}

function example(api, schema) {
  const known = resolved(api, schema);
  for (const part of [known, ...(known.anyOf || known.oneOf || [])]) {
    const model = resolved(api, part);
    if (model && model.examples) return model.examples[0];
  }
  return {};
}

function operation(api, path, method, told, parent) {
  const box = element("details", undefined, parent);
  element("summary", `${method.toUpperCase()} ${path}: ${told.summary}`, box);
  for (const line of (told.description || "").split("\n\n")) element("p", line, box);
  const schema = told.requestBody && told.requestBody.content["application/json"].schema;
  if (schema) fields(api, schema, box);
  const body = schema && element("textarea", JSON.stringify(example(api, schema), null, 2), box);
  if (body) body.rows = 8;
  const button = element("button", "Ask", box);
  const answer = element("pre", "", box);
  button.addEventListener("click", async () => {
    const headers = { "Content-Type": "application/json" };
    const token = document.getElementById("token").value;
    if (token) headers.Authorization = `Bearer ${token}`;
    try {
      const got = await fetch(path, { method: method.toUpperCase(), headers, body: body && body.value });
      answer.textContent = `${got.status}\n${await got.text()}`;
    } catch (error) {
      answer.textContent = String(error);
    }
  });
  const answers = element("ul", undefined, box);
  for (const [status, one] of Object.entries(told.responses)) {
    element("li", `${status}: ${one.description}`, answers);
  }
}

async function show() {
  const api = await (await fetch("/openapi.json")).json();
  const place = document.getElementById("operations");
  place.textContent = "";
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const [method, told] of Object.entries(methods)) operation(api, path, method, told, place);
  }
}

show().catch((error) => {
  document.getElementById("operations").textContent = String(error);
});
