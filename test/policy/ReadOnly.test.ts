import { assert, describe, it } from "@effect/vitest"
import type { Command, Inspection } from "../../src/policy/ReadOnly.js"
import { inspect } from "../../src/policy/ReadOnly.js"
import { reads, sideEffects, writes } from "./ReadOnly.corpus.js"

const commands = (table: Record<string, Command>) => {
  for (const [sql, command] of Object.entries(table)) assert.strictEqual(inspect(sql).command, command, sql)
}

const verdicts = (key: keyof Inspection, expected: boolean, texts: ReadonlyArray<string>) => {
  for (const sql of texts) assert.strictEqual(inspect(sql)[key], expected, sql)
}

describe("readOnly", () => {
  it("holds for one SELECT, VALUES, TABLE or SHOW that only reads", () => verdicts("readOnly", true, reads))

  it("does not hold for what writes or locks", () => verdicts("readOnly", false, writes))

  it("does not hold for other side effects, and for what may have some", () => verdicts("readOnly", false, sideEffects))

  it("does not hold for functions that pg_catalog does not know", () =>
    verdicts("readOnly", false, [
      "SELECT similarity(a, b) FROM t",
      "SELECT public.lower('x')",
      "SELECT db.pg_catalog.lower('x')",
      "SELECT ST_Distance(a, b) FROM t",
      "SELECT * FROM my_view_function($1)",
      "SELECT any_value(a), date_add(b, '1 day') FROM t" // known since 16 only
    ]))

  it("does not hold for what a server would not accept", () =>
    verdicts("readOnly", false, [
      "",
      " -- nothing",
      ";",
      "SELECT 'unterminated",
      "SELECT $$unterminated $",
      'SELECT "unterminated',
      "SELECT /* /* */ 1",
      "SELECT (1",
      "SELECT 1)",
      "SELECT (1; DELETE FROM t",
      "SELECT (1; 2)",
      "SELECT 1\0",
      "WITH a AS (SELECT 1)"
    ]))

  it("holds only if both settings of standard_conforming_strings agree", () => {
    verdicts("readOnly", true, ["SELECT 'a\\b', '\\\\', '\\d''\\w'"])
    verdicts("readOnly", false, ["SELECT '\\', nextval($1), '", "SELECT '\\'', nextval(1) --'", "SELECT '\\'"])
    assert.isTrue(inspect("SELECT '\\'; COMMIT; DELETE FROM t; --'").opaque)
    assert.isTrue(inspect("SELECT '\\''; COMMIT; DELETE FROM t; --'").opaque)
  })
})

describe("command", () => {
  it("is the first word, wherever it stands", () =>
    commands({
      "SELECT 1": "select",
      "\n-- x\nselect 1;": "select",
      "((SELECT 1))": "select",
      "VALUES (1)": "values",
      "(values (1))": "values",
      "TABLE t": "table",
      "SHOW ALL": "show",
      "INSERT INTO t SELECT 1": "insert",
      "UPDATE t SET a = 1": "update",
      "DELETE FROM t": "delete",
      "MERGE INTO t USING u ON true WHEN MATCHED THEN DELETE": "merge",
      "SET a = b": "set",
      "RESET a": "set",
      "CALL p()": "call",
      "DO $$BEGIN END$$": "do",
      "COPY t FROM STDIN": "copy",
      "EXPLAIN SELECT 1": "explain",
      "CREATE TABLE t ()": "create",
      "ALTER TABLE t ADD a int": "alter",
      "DROP TABLE t": "drop",
      "TRUNCATE t": "truncate",
      "LISTEN c": "other",
      "PREPARE p AS SELECT 1": "other",
      '"select" 1': "other",
      "selects 1": "other",
      "'select'": "other"
    }))

  it("names transaction control by what it does", () =>
    commands({
      BEGIN: "begin",
      "START TRANSACTION": "begin",
      COMMIT: "commit",
      END: "commit",
      ROLLBACK: "rollback",
      ABORT: "rollback",
      "ROLLBACK TO a": "rollback",
      "SAVEPOINT a": "savepoint",
      "RELEASE a": "release"
    }))

  it("is the one that a WITH is for", () =>
    commands({
      "WITH a AS (SELECT 1) SELECT 2": "select",
      "WITH a AS (SELECT 1) INSERT INTO t TABLE a": "insert",
      "WITH RECURSIVE a(x) AS (DELETE FROM t RETURNING 1), b AS MATERIALIZED (SELECT 1) UPDATE t SET a = 1": "update",
      "WITH update AS (SELECT 1), delete (a) AS (SELECT 1) VALUES (1)": "values",
      "WITH a AS (SELECT 1) (SELECT 2)": "select",
      "WITH a AS (SELECT 1) ((TABLE a))": "table",
      "(WITH a AS (SELECT 1) SELECT 2)": "select",
      "WITH a AS (SELECT 1) CYCLE merge, delete SET update USING merge DELETE FROM t": "delete",
      "WITH a AS (SELECT 1)": "other"
    }))

  it("says how many there are when there is not one", () =>
    commands({
      "": "empty",
      " ;; -- SELECT": "empty",
      "SELECT 1;;": "select",
      ";SELECT 1": "select",
      "SELECT 1; SELECT 2": "multiple",
      "SELECT ';'": "select",
      "CREATE RULE r AS ON DELETE TO t DO ALSO (INSERT INTO u VALUES (1); DELETE FROM u)": "create",
      "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1; SELECT 2'": "create"
    }))

  it("takes the body of an SQL function for a part of its CREATE", () =>
    commands({
      "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN 2 END; END": "create",
      "CREATE OR REPLACE PROCEDURE p() BEGIN ATOMIC INSERT INTO t VALUES (1); END;": "create",
      "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT (CASE 1 WHEN 1 THEN 2 END); END; SELECT 1": "multiple",
      "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1 AS case; END; COMMIT": "multiple",
      "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1 case; END; COMMIT": "multiple",
      "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT t.end FROM t; END": "create",
      "CREATE TABLE x AS SELECT begin atomic FROM t; COMMIT": "multiple"
    }))
})

describe("transactionControl", () => {
  it("holds where a command begins, ends or divides a transaction", () =>
    verdicts("transactionControl", true, [
      ...[
        "BEGIN",
        "begin isolation level serializable",
        "START TRANSACTION",
        "COMMIT",
        "COMMIT AND CHAIN",
        "END",
        "ABORT"
      ],
      ...["ROLLBACK", "ROLLBACK TO SAVEPOINT a", "SAVEPOINT a", "RELEASE SAVEPOINT a", "PREPARE TRANSACTION 'x'"],
      ...[
        "COMMIT PREPARED 'x'",
        "ROLLBACK PREPARED 'x'",
        "SELECT 1; COMMIT",
        ";; -- x\nCOMMIT;",
        "SELECT $$;$$; END; SELECT 1"
      ]
    ]))

  it("does not hold for the same words elsewhere", () =>
    verdicts("transactionControl", false, [
      ...[
        "SELECT 1 AS commit",
        "SELECT 'x; COMMIT'",
        "SELECT 1 -- ; COMMIT",
        "PREPARE p AS SELECT 1",
        "SET TRANSACTION READ ONLY"
      ],
      ...['"COMMIT"', "DO $$BEGIN COMMIT; END$$", "CREATE RULE r AS ON DELETE TO t DO (SELECT 1; SELECT 2)"],
      "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END"
    ]))
})

describe("opaque", () => {
  it("holds for several commands with transaction control among them, and for commands that are not atomic", () =>
    verdicts("opaque", true, [
      ...[
        "BEGIN; INSERT INTO t VALUES (1); COMMIT",
        "INSERT INTO t VALUES (1); END; SELECT 1/0",
        "SAVEPOINT a; SELECT 1"
      ],
      ...["SELECT 1; PREPARE TRANSACTION 'x'", "COMMIT PREPARED 'x'; SELECT 1", "DELETE FROM t;ABORT"],
      ...["CALL p()", "DO $$BEGIN END$$", "VACUUM t", "ANALYZE", "CLUSTER t", "REINDEX TABLE t", "SELECT 1; CALL p()"],
      ...["CREATE INDEX CONCURRENTLY i ON t (a)", "create unique index /**/ concurrently if not exists i on t (a)"],
      ...["DROP INDEX CONCURRENTLY i", "REINDEX INDEX CONCURRENTLY i", "ALTER TABLE t DETACH PARTITION u CONCURRENTLY"],
      ...[
        "CREATE DATABASE d",
        "DROP DATABASE d",
        "ALTER DATABASE d SET TABLESPACE s",
        "CREATE TABLESPACE s LOCATION '/'"
      ],
      ...["DROP TABLESPACE s", "ALTER SYSTEM SET a = 1", "CREATE SUBSCRIPTION s CONNECTION '' PUBLICATION p"]
    ]))

  it("does not hold where an error undoes all of the text", () =>
    verdicts("opaque", false, [
      ...["", "SELECT 1", "INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (1); DELETE FROM t", "BEGIN", "COMMIT"],
      ...[
        "COMMIT PREPARED 'x'",
        "ROLLBACK",
        "CREATE INDEX i ON t (a)",
        'SELECT 1 AS "concurrently"',
        "SELECT call, vacuum FROM t"
      ],
      ...[
        "REFRESH MATERIALIZED VIEW CONCURRENTLY v",
        "CREATE TABLE t ()",
        "TRUNCATE t",
        "COPY t FROM STDIN",
        "SELECT 'CALL p()'"
      ],
      ...["INSERT INTO t VALUES ('; COMMIT; ')", "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END; SELECT 1"]
    ]))
})
