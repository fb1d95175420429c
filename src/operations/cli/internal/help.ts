/** The parser's help, for where it goes: without colours where there are none, and lists of commands that can be read. */

// biome-ignore lint/suspicious/noControlCharactersInRegex: that is what is taken out
const escapes = /\u001b\[[0-9;]*m/g

export const plain = (text: string): string => text.replace(escapes, "")

/** `  - pool recommend [--url text] [--json]     What it does`: the options are in the command's own help. */
const command = /^ {2}- (\S+(?: [a-z]\S*)*)(?: [[(<-].*?)? {2,}(\S.*)$/

/** Help with a list of commands gets that list as two columns, whatever options they have. */
export const tidy = (text: string): string => {
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
