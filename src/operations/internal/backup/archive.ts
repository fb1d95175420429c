/**
 * Archiving WAL: the settings of the server, and the command that keeps a segment safe. By the rules of the manual, 26.3.1:
 * zero only when the segment is on disk under its name, never over another file, and zero again for the same content, as
 * the server sends a segment twice when it crashed before it had noted the first time.
 */

/** For a POSIX shell, between single quotes. In a setting's command `%` is an escape too, and is doubled. */
const quoted = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`

/**
 * Copied under a temporary name and flushed; then `ln`, which fails where the name is taken: no moment and no race in which
 * a file is overwritten, or there by half. Then the directory is flushed. Only programs that every system has.
 */
export const command = (directory: string): string => {
  const archive = directory.replace(/\/+$/, "").replaceAll("%", "%%")
  const [partial, final] = [quoted(`${archive}/.%f.partial`), quoted(`${archive}/%f`)]
  return [
    `cp '%p' ${partial}`,
    `sync ${partial}`,
    `{ ln ${partial} ${final} || cmp ${partial} ${final}; }`,
    `rm -f ${partial}`,
    `sync ${quoted(`${archive}/`)}`
  ].join(" && ")
}

/** Tries one directory after the other. Without any the command fails, which says that there is no more. */
export const restoreCommand = (directories: ReadonlyArray<string>): string =>
  directories.length === 0
    ? "false"
    : directories
        .map((directory) => quoted(`${directory.replaceAll("%", "%%")}/%f`))
        .map((file) => `{ test -f ${file} && cp ${file} '%p'; }`)
        .join(" || ")

/** A string of SQL, or of postgresql.conf. */
export const literal = (text: string): string => `'${text.replaceAll("'", "''")}'`

/** As statements for a superuser. */
export const statements = (settings: Readonly<Record<string, string>>): ReadonlyArray<string> =>
  Object.entries(settings).map(([name, value]) => `ALTER SYSTEM SET ${name} = ${literal(value)};`)
