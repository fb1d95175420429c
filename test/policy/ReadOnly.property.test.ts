import { assert, describe, it } from "@effect/vitest"
import { FastCheck as fc } from "effect"
import { inspect } from "../../src/policy/internal/sqlInspection.js"
import { Lexer, type Token } from "../../src/policy/internal/sqlLexer.js"
import * as arbitrary from "./ReadOnly.arbitrary.js"
import { reads, sideEffects, writes } from "./ReadOnly.corpus.js"

const tokens = (sql: string): ReadonlyArray<Token> => {
  const lexer = new Lexer(sql)
  const all: Array<Token> = []
  for (let token = lexer.next(); token.kind !== "end"; token = lexer.next()) all.push(token)
  return all
}

const anyText = fc.oneof(
  fc.fullUnicodeString(),
  fc.string16bits(), // lone surrogates too
  fc.string({ maxLength: 200 }),
  arbitrary.soup,
  arbitrary.grammar
)

describe("the lexer", () => {
  it("never throws and covers any text with tokens in order", () => {
    fc.assert(
      fc.property(anyText, fc.boolean(), (sql, backslashes) => {
        const lexer = new Lexer(sql, backslashes)
        let position = 0
        for (let token = lexer.next(); token.kind !== "end"; token = lexer.next()) {
          assert.isAtLeast(token.start, position)
          assert.isAbove(token.end, token.start)
          position = token.end
        }
        assert.isAtMost(position, sql.length)
        assert.strictEqual(lexer.next().kind, "end")
        inspect(sql)
      }),
      { numRuns: 2_000 }
    )
  })

  it("ends tokens where the server's lexer ends them", () => {
    const table: Record<string, ReadonlyArray<string>> = {
      "'a' 'b'": ["'a'", "'b'"],
      "'a'\n'b'": ["'a'\n'b'"],
      "'a''b'": ["'a''b'"],
      "E'a'\r-- '\n'\\''": ["E'a'\r-- '\n'\\''"],
      "E'\\\\' E'\\''": ["E'\\\\'", "E'\\''"],
      "fooE'a'": ["fooE", "'a'"],
      "1e'\\''": ["1", "e'\\''"],
      "1e5into 1.5e-3x .5 1e+": ["1e5", "into", "1.5e-3", "x", ".5", "1", "e", "+"],
      "$1into $1$$a$$": ["$1", "into", "$1", "$$a$$"],
      "a$$b$$ $ab $a$$b$a$": ["a$$b$$", "$", "ab", "$a$$b$a$"],
      'u&"a""b" u& "c"': ['u&"a""b"', "u", "&", '"c"'],
      "a.b::c:d": ["a", ".", "b", "::", "c", ":", "d"],
      "*/*x*/-/*/**/*/- --": ["*", "-", "-"],
      "\u00a0é \uff08": ["\u00a0é", "\uff08"]
    }
    for (const [sql, expected] of Object.entries(table)) {
      assert.deepStrictEqual(
        tokens(sql).map((_) => sql.slice(_.start, _.end)),
        expected
      )
    }
  })

  it("reads complete pieces of quoting as one token, whatever they hold", () => {
    fc.assert(
      fc.property(arbitrary.quoted, arbitrary.gap, (piece, gap) => {
        assert.deepStrictEqual(
          tokens(`${gap}${piece} ;`).map((_) => _.kind),
          ["literal", ";"]
        )
      }),
      { numRuns: 2_000 }
    )
  })
})

describe("verdicts", () => {
  it("do not change with case, white space and comments", () => {
    const statement = fc.constantFrom(...reads, ...writes, ...sideEffects, "BEGIN; INSERT INTO t VALUES (1); COMMIT")
    fc.assert(
      fc.property(statement, fc.infiniteStream(arbitrary.gap), fc.infiniteStream(fc.boolean()), (sql, gaps, upper) => {
        const other = tokens(sql).map((token) => {
          const text = sql.slice(token.start, token.end)
          const cased = token.kind !== "word" ? text : upper.next().value ? text.toUpperCase() : text.toLowerCase()
          // Upper and lower case of "ß" and the Kelvin sign are other names to the server.
          return ` ${gaps.next().value}${/^[ -~]*$/.test(text) ? cased : text}`
        })
        assert.deepStrictEqual(inspect(other.join("")), inspect(sql), other.join(""))
      }),
      { numRuns: 3_000 }
    )
  })

  /** A SELECT with holes between its tokens, where a piece of SQL may come after an operand. */
  const around = fc.tuple(
    fc.array(fc.oneof(arbitrary.quoted, fc.constantFrom('"a""b"', "count(*)", "1", "$1", "(SELECT 1)")), {
      maxLength: 4
    }),
    fc.array(fc.oneof(arbitrary.quoted, fc.constantFrom('"it\'s"', "lower('A')", "2")), { maxLength: 4 }),
    arbitrary.gap
  )

  const hidden = fc.constantFrom(
    ...[
      ", nextval('s')",
      ", pg_catalog.nextval('s')",
      ", \"nextval\"('s')",
      ", setval ('s', 1)",
      ", public.f()",
      ', "F"()'
    ],
    ...[", ('s').nextval", ", treat('s' AS nextval)", ", U&\"nextval\"('s')", " INTO x FROM t", " FROM t FOR UPDATE"],
    ...[" FROM t FOR KEY SHARE", "; DELETE FROM t; SELECT 1", " WHERE 1 = (DELETE FROM t RETURNING 1)", ", w(1)"]
  )

  it("are never read-only for a write, whatever is quoted or commented around it", () => {
    fc.assert(
      fc.property(around, hidden, ([before, after, gap], write) => {
        const sql = `SELECT ${["0", ...before].join(`,${gap}`)}${gap}${write}${gap}${["", ...after].join(`,${gap}`)}`
        assert.isFalse(inspect(sql).readOnly, sql)
      }),
      { numRuns: 3_000 }
    )
  })

  it("are not frightened by a write that is quoted", () => {
    fc.assert(
      fc.property(around, hidden, ([before, after, gap], write) => {
        const inside = [`'${write.replaceAll("'", "''")}'`, `$w$${write}$w$`, `/*${write}*/ 1`, `0 --${write}\n`]
        const sql = `SELECT ${[...before, ...inside, ...after].join(`${gap},`)}`
        assert.isTrue(inspect(sql).readOnly, sql)
      }),
      { numRuns: 3_000 }
    )
  })
})

/** A string that counts how many of its characters are looked at. */
class Counted {
  looks = 0
  constructor(private readonly text: string) {}
  get length() {
    return this.text.length
  }
  charCodeAt(index: number) {
    this.looks++
    return this.text.charCodeAt(index)
  }
  indexOf(part: string, from: number) {
    const found = this.text.indexOf(part, from)
    this.looks += (found < 0 ? this.text.length : found) - from + part.length
    return found
  }
  slice(start: number, end: number) {
    this.looks += end - start
    return this.text.slice(start, end)
  }
}

describe("effort", () => {
  /** Looks per character: at most four to read it, twice where both settings of standard_conforming_strings are tried. */
  const bound = 9

  const adversaries = [
    ..."'\"$()[].,;:/*-+\\\n\0 aeEuU&1é".split(""),
    ...[
      "'\n",
      "''",
      "E'",
      "E'\\",
      "U&'",
      'U&"',
      "$a",
      "$a$",
      "$$",
      "$a$b",
      "$1",
      "/*",
      "*/",
      "/*/",
      "/**",
      "--",
      "--\n"
    ],
    ...[
      "- -",
      "1.",
      "1e",
      "1e+",
      ".1",
      "a.",
      "(a",
      "f(",
      "),(",
      "a'b",
      "'--\n",
      "'\n--",
      "E'a'\n",
      "x AS (",
      "with a as (",
      "::"
    ],
    ...["case ", "create function begin atomic ", "begin atomic;", "not ", "distinct on ("]
  ]

  it("grows with the length of the text and no faster", () => {
    const length = 20_000
    const effort = (head: string, unit: string) => {
      const counted = new Counted(head + unit.repeat(length / unit.length))
      inspect(counted)
      return counted.looks / counted.length
    }
    const heads = ["", "SELECT ", "'", "E'", '"', "$a$", "/*", "("]
    const efforts = heads.flatMap((head) => adversaries.map((unit) => [effort(head, unit), head + unit] as const))
    for (const [looks, text] of efforts)
      assert.isBelow(looks, bound, `characters looked at, per character, in ${text}…`)
  })

  it("is bounded for random texts too", () => {
    fc.assert(
      fc.property(fc.array(fc.constantFrom(...adversaries), { minLength: 200, maxLength: 400 }), (parts) => {
        const counted = new Counted(parts.join(""))
        inspect(counted)
        assert.isBelow(counted.looks / counted.length, bound)
      }),
      { numRuns: 300 }
    )
  })
})
