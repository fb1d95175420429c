/** The little that the page needs of the DOM. What comes from the server only ever becomes text. */

export const byId = (id: string): HTMLElement => {
  const found = document.getElementById(id)
  if (found === null) throw new Error(`The page has no #${id}`)
  return found
}

type Child = Node | string

export const element = <Name extends keyof HTMLElementTagNameMap>(
  name: Name,
  attributes: Readonly<Record<string, string>> = {},
  ...children: ReadonlyArray<Child>
): HTMLElementTagNameMap[Name] => {
  const made = document.createElement(name)
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value)
  made.append(...children)
  return made
}

export const svg = <Name extends keyof SVGElementTagNameMap>(
  name: Name,
  attributes: Readonly<Record<string, string>> = {},
  ...children: ReadonlyArray<Child>
): SVGElementTagNameMap[Name] => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name)
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value)
  made.append(...children)
  return made
}

/** One of the page's own symbols; what it means is said by the words beside it. */
export const icon = (name: string): SVGSVGElement =>
  svg("svg", { class: `icon ${name}`, viewBox: "0 0 16 16", "aria-hidden": "true" }, svg("use", { href: `#${name}` }))

export const setText = (target: Element, text: string): void => {
  if (target.textContent !== text) target.textContent = text
}

export const setAttribute = (target: Element, name: string, value: string): void => {
  if (target.getAttribute(name) !== value) target.setAttribute(name, value)
}

const shown = new WeakMap<Element, string>()

/** Makes the content anew when what it shows is another, and only then: a selection, a focus and a scroll stay. */
export const show = (target: Element, what: unknown, make: () => ReadonlyArray<Child>): void => {
  const key = JSON.stringify(what)
  if (shown.get(target) === key) return
  shown.set(target, key)
  target.replaceChildren(...make())
}

/** A symbol and a word. */
export const mark = (target: Element, name: string, word: string): void =>
  show(target, [name, word], () => [icon(name), word])

/** A cell that holds a figure is aligned as figures are. */
export const figure = (text: string): HTMLTableCellElement => element("td", { class: "figure" }, text)

export const instant = (at: number, text: string): HTMLTimeElement =>
  element("time", { datetime: new Date(at).toISOString() }, text)

export const none = (columns: number, text: string): HTMLTableRowElement =>
  element("tr", {}, element("td", { class: "none", colspan: String(columns) }, text))
