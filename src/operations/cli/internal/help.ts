/** The parser's help, for where it goes: without colours where there are none, and lists of commands that can be read. */

// biome-ignore lint/suspicious/noControlCharactersInRegex: that is what is taken out
const escapes = /\u001b\[[0-9;]*m/g

export const plain = (text: string): string => text.replace(escapes, "")

/** `  - pool recommend [--url text] [--json]     What it does`: the options are in the command's own help. */
const command = /^ {2}- (\S+(?: [a-z]\S*)*)(?: [[(<-].*?)? {2,}(\S.*)$/

/** Help with a list of commands gets that list as two columns, whatever options they have. */
const listed = (text: string): string => {
  const lines = text.split("\n")
  const heading = lines.findIndex((line) => plain(line).trim() === "COMMANDS")
  if (heading === -1) return text
  const rows = lines.slice(heading + 1).flatMap((line) => {
    const [, name, what] = command.exec(plain(line)) ?? []
    return name === undefined || what === undefined ? [] : [{ name, what }]
  })
  const width = Math.max(0, ...rows.map(({ name }) => name.length))
  return [
    ...lines.slice(0, heading + 1),
    "",
    ...rows.map(({ name, what }) => `  ${name.padEnd(width)}  ${what}`),
    "",
    "Each has its own --help."
  ].join("\n")
}

/** The words before the first option: the command that was asked for, and the commands that it is under. */
export const path = (args: ReadonlyArray<string>): ReadonlyArray<string> => {
  const words = args.slice(2)
  const option = words.findIndex((word) => word.startsWith("-"))
  return option === -1 ? words : words.slice(0, option)
}

/** The usage begins with the command's own name; a person types all that is before it, too. */
const whole = (text: string, name: string, args: ReadonlyArray<string>): string =>
  text.replace(/^\$ (\S+)/m, (usage, first: string) => {
    const at = path(args).lastIndexOf(first)
    return first === name ? usage : `$ ${[name, ...path(args).slice(0, Math.max(0, at)), first].join(" ")}`
  })

/** What the parser prints as help; everything else stays as it is. */
export const tidy = (text: string, name: string, args: ReadonlyArray<string>): string =>
  plain(text).startsWith(`${name}\n`) && plain(text).includes("\nUSAGE\n") ? whole(listed(text), name, args) : text
