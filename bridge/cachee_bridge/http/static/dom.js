// Elements, made and kept. Text enters the page by textContent alone.

const SVG = "http://www.w3.org/2000/svg";

// Characters that a screen does not show, or that turn the order of what follows around.
const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u00ad\u200b-\u200f\u2028-\u202f\u2060-\u206f\ufeff\ufff9-\uffff\ud800-\udfff]/gu;

export const byId = (id) => document.getElementById(id);

/** Any text from outside, with each character that could not be seen written out. */
export function visible(text) {
  return String(text).replace(UNSEEN, (character) => `\\u${character.codePointAt(0).toString(16).padStart(4, "0")}`);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    set(element, name, value);
  }
  for (const child of children) {
    element.append(child instanceof Node ? child : document.createTextNode(visible(child)));
  }
  return element;
}

/** An element with its attributes; a child that is no node becomes text. */
export function make(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

export function draw(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

/** Sets an attribute only if it changes, so that nothing is announced anew. null takes it away. */
export function set(element, name, value) {
  if (value === null || value === undefined) {
    element.removeAttribute(name);
  } else if (element.getAttribute(name) !== String(value)) {
    element.setAttribute(name, value);
  }
}

export function say(element, text) {
  const shown = visible(text);
  if (element.textContent !== shown) {
    element.textContent = shown;
  }
}

/** Keeps one child of `parent` for each item, by its key and in the items' order; `fill(child, item)` each time. */
export function keep(parent, items, keyOf, create, fill) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let at = parent.firstElementChild;
  for (const item of items) {
    const key = String(keyOf(item));
    let child = old.get(key);
    old.delete(key);
    if (child === undefined) {
      child = create(item);
      child.dataset.key = key;
    }
    if (child === at) {
      at = at.nextElementSibling;
    } else {
      parent.insertBefore(child, at);
    }
    fill(child, item);
  }
  old.forEach((child) => child.remove());
}
