/** WAL positions and the files they are in. Source: PostgreSQL manual, 30.6 "WAL Internals", and access/xlog_internal.h. */
import * as Option from "effect/Option"

/** Bytes of a segment unless a cluster was made with others (`initdb --wal-segsize`). */
export const segmentBytes = 16 * 1024 * 1024

/** `16/B374D848` as a number of bytes. */
export const position = (lsn: string): Option.Option<bigint> => {
  const found = /^([0-9A-F]{1,8})\/([0-9A-F]{1,8})$/i.exec(lsn)
  return found ? Option.some((BigInt(`0x${found[1]}`) << 32n) + BigInt(`0x${found[2]}`)) : Option.none()
}

/** The number of the segment that holds a position. */
export const segmentOf = (position: bigint, bytes: number): bigint => position / BigInt(bytes)

const hex = (value: bigint, digits: number) => value.toString(16).toUpperCase().padStart(digits, "0")

/** The file's name of a segment. */
export const fileName = (timeline: number, segment: bigint, bytes: number): string => {
  const perId = 0x1_0000_0000n / BigInt(bytes)
  return hex(BigInt(timeline), 8) + hex(segment / perId, 8) + hex(segment % perId, 8)
}

/** A whole segment by its file name: neither a history file, a label, nor a `.partial`. */
export const parse = (
  file: string,
  bytes: number
): Option.Option<{ readonly timeline: number; readonly segment: bigint }> => {
  if (!/^[0-9A-F]{24}$/.test(file)) return Option.none()
  const perId = 0x1_0000_0000n / BigInt(bytes)
  const segment = BigInt(`0x${file.slice(8, 16)}`) * perId + BigInt(`0x${file.slice(16)}`)
  return Option.some({ timeline: Number.parseInt(file.slice(0, 8), 16), segment })
}

/**
 * The first segment that is missing although a later one is there, or that comes before `upTo`; a recovery would end in
 * front of it without a word. `from` is the segment in which the base backup ends: it has that one itself. A segment may
 * be there on any timeline from the backup's on.
 */
export const gap = (
  files: ReadonlyArray<string>,
  options: {
    readonly timeline: number
    readonly from: bigint
    readonly upTo?: bigint | undefined
    readonly bytes: number
  }
): string | undefined => {
  const there = new Set<bigint>([options.from])
  let last = options.from
  for (const file of files) {
    const found = Option.getOrUndefined(parse(file, options.bytes))
    if (found === undefined || found.timeline < options.timeline || found.segment <= options.from) continue
    there.add(found.segment)
    if (found.segment > last) last = found.segment
  }
  const end = options.upTo ?? last
  for (let segment = options.from; segment <= end; segment++) {
    if (!there.has(segment)) return fileName(options.timeline, segment, options.bytes)
  }
  return undefined
}

/** Files of an archive that no recovery from a base backup which starts in `oldest` reads. History files are kept. */
export const unneeded = (files: ReadonlyArray<string>, oldest: bigint, bytes: number): ReadonlyArray<string> =>
  files.filter((file) => {
    const segment = Option.getOrUndefined(parse(file.replace(/(\.[0-9A-F]{8}\.backup|\.partial)$/, ""), bytes))
    return segment !== undefined && segment.segment < oldest
  })
