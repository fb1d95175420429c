/** Random texts for the tests of `ReadOnly`. */
import { FastCheck as fc } from "effect"

/** What quoting is made of, so that random rows of it open, close and nest quotes in ways nobody would write by hand. */
const fragments = [
  ...[
    "'",
    "'",
    "''",
    "\\",
    "\\'",
    "E'",
    "e'",
    "U&'",
    "B'",
    "X'",
    "n'",
    "$$",
    "$a$",
    "$1",
    "$",
    "$é$",
    "--",
    "\n",
    "\r"
  ],
  ...["/*", "*/", '"', 'U&"', " UESCAPE ", "nextval('s')", "nextval", "('s')", ").nextval", "].nextval", "(", ")", "["],
  ...[",", " ", "\t", "1", "1e", "0x", "_", "a", "+", "-", "*", "/", "||", ";", ".", "::text", " AS ", " INTO ", "w(1)"]
]

/** Rows of fragments of quoting, names and calls; a few of them are SQL. */
export const soup = fc
  .array(fc.constantFrom(...fragments), { minLength: 1, maxLength: 14 })
  .map((parts) => `SELECT ${parts.join("")}`)

/** Names of functions that the grammar gives another meaning elsewhere; all of them write in the schema of the corpus. */
const name = fc.constantFrom(
  ...["w", "by", "cube", "escape", "filter", "first", "ilike", "join", "materialized", "over", "recursive", "rollup"],
  ...["rows", "sets", "varying", "within", "zone", "lower"]
)

const infix = fc.constantFrom(
  ...["+", "=", "||", "AND", "OR", "LIKE", "ILIKE", "NOT ILIKE", "SIMILAR TO", "IS DISTINCT FROM", "AT TIME ZONE"],
  ...["BETWEEN 1 AND", "OPERATOR(pg_catalog.+)"]
)

const { query } = fc.letrec<{ readonly call: string; readonly value: string; readonly query: string }>((tie) => {
  const value = tie("value")
  const query = tie("query")
  /** A form with holes: `?` for a value, `@` for a query, `#` for a name. */
  const form = (text: string) => {
    const parts = text.split(/([?@#])/)
    const fill = parts.map((part) =>
      part === "?" ? value : part === "@" ? query : part === "#" ? name : fc.constant(part)
    )
    return fc.tuple(...fill).map((_) => _.join(""))
  }
  const forms = (...texts: ReadonlyArray<string>) => texts.map(form)
  return {
    call: name.map((_) => `${_}(1)`),
    value: fc.oneof(
      { depthSize: "small" },
      fc.constantFrom("1", "id", "NULL", "$$x$$"),
      tie("call"),
      fc.tuple(value, infix, value).map((parts) => parts.join(" ")),
      ...forms("(?)", "NOT ?", "- ?", "ARRAY[?]", "ROW (?, ?)", "(ARRAY[1])[?]", "coalesce(?, ?)", "(?)::varchar(3)"),
      ...forms(
        "CASE ? WHEN ? THEN ? ELSE ? END",
        "CAST(? AS numeric(4, 2))",
        "? LIKE 'a' ESCAPE ?",
        "? BETWEEN ? AND ?"
      ),
      ...forms("max(?) FILTER (WHERE ?) OVER (PARTITION BY ? ORDER BY ? ROWS ? PRECEDING)", "count(?) OVER w"),
      ...forms(
        "substring('a' FROM ? FOR ?)",
        "substring('a' SIMILAR ? ESCAPE ?)",
        "extract(year FROM ?)",
        "treat(? AS w)"
      ),
      ...forms(
        "xmlelement(name a, ?)",
        "xmlparse(DOCUMENT ?)",
        "xmlroot(?, VERSION ?)",
        "xmlexists(? PASSING BY REF ?)"
      ),
      ...forms("percentile_cont(?) WITHIN GROUP (ORDER BY ?)", "(@)", "EXISTS (@)", "1 IN (@)", "ARRAY(@)")
    ),
    query: fc.oneof(
      { depthSize: "small" },
      ...forms("SELECT ?, ? FROM t WINDOW w AS (ORDER BY id)", "SELECT DISTINCT ON (?) ? FROM t", "VALUES (?, ?)"),
      ...forms("SELECT ? FROM t WHERE ? ORDER BY ?, ? LIMIT ? OFFSET ?", "SELECT 1 FROM t GROUP BY ? HAVING ?"),
      ...forms(
        "SELECT 1 FROM t, #(1) AS #(z)",
        "SELECT 1 FROM t JOIN #(1) ON true",
        "SELECT 1 FROM t CROSS JOIN #(1) #"
      ),
      ...forms("SELECT 1 FROM t, LATERAL #(1) WITH ORDINALITY AS #(z, y)", "SELECT 1 FROM ROWS FROM (#(1)) x"),
      ...forms("SELECT 1 FROM t JOIN (@) # ON true", "SELECT 1 FETCH FIRST ? ROWS ONLY", "(@) UNION ALL (@)"),
      ...forms("WITH #(z) AS (@) @", "WITH a AS (@), # AS NOT MATERIALIZED (@) (@) ORDER BY 1, #(1)")
    )
  }
})

/** Queries of mostly sound grammar with calls that write in every place where an expression can stand. */
export const grammar = query

const text = fc.oneof(
  fc.string(),
  fc.fullUnicodeString(),
  fc.array(fc.constantFrom(...fragments), { maxLength: 6 }).map((_) => _.join(""))
)

/** Complete pieces of quoting around any content whatever: nothing in them is code, and nothing of them leaks out. */
export const quoted = fc
  .oneof(
    text.map((_) => `'${_.replaceAll("\\", "/").replaceAll("'", "''")}'`),
    text.map((_) => `E'${_.replace(/[\\']/g, "\\$&")}'`),
    text.map((_) => `$q${_.length}$${_.replaceAll("$", "")}$q${_.length}$`),
    text.map((_) => `$$${_.replaceAll("$", "/")}$$`)
  )
  .filter((_) => !_.includes("\0"))

export const comment = fc
  .oneof(
    text.map((_) => ` /*${_.replace(/[*/]/g, "'")}*/ `),
    text.map((_) => ` /* /*${_.replace(/[*/]/g, '"')}*/ ' */ `),
    text.map((_) => ` --${_.replace(/[\n\r]/g, "'")}\n`)
  )
  .filter((_) => !_.includes("\0"))

/** What can stand between two tokens. */
export const gap = fc.oneof(fc.constantFrom(" ", "\n", "\t ", "\r\n", "\f"), comment)
