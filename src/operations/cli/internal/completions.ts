/**
 * The parser's completion scripts, mended. In places they spell a command's name as it is, and in others with `__` for `-`,
 * which a name with hyphens does not survive; and they look for a command under a command under a name that it never has.
 */

/** `effect-pg-resilience` to `effect__pg__resilience`. */
const spelt = (name: string) => name.replaceAll("-", "__")

const bash = (script: string, name: string): string =>
  script
    .replaceAll(`cmd="${name}"`, `cmd="${spelt(name)}"`)
    .replace(new RegExp(`^( +)${name}\\)$`, "m"), `$1${spelt(name)})`)
    // The values of an option, which `compgen` takes apart at spaces.
    .replace(/compgen -W "([\w,-]+)"/g, (_, values: string) => `compgen -W "${values.replaceAll(",", " ")}"`)
    // `a,b,c)` is `c` typed after `a b`, which is known as `a__b` by then.
    .replace(/^( +)([\w,]+),(\w[\w-]*)\)$/gm, (_, indent: string, path: string, last: string) => {
      return `${indent}${path.replaceAll(",", "__")},${last})`
    })

const zsh = (script: string, name: string): string =>
  script.replace(new RegExp(`\\b_${name}((?:__\\w+)?_commands)\\b`, "g"), `_${spelt(name)}$1`)

/** What is no completion script stays as it is. */
export const mend = (text: string, name: string): string => {
  if (text.startsWith(`function _${name}_bash_completions`)) return bash(text, name)
  return text.startsWith(`#compdef ${name}\n`) ? zsh(text, name) : text
}
