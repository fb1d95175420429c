/** Checks of the way to the server, of the server's version, and of its connections. */
import * as PoolSizing from "../../../config/PoolSizing.js"
import { type Around, type Check, check, count, levelOf, millis, ok, percent, type Said } from "./check.js"
import type { Subjects } from "./facts.js"
import type { SettingName } from "./queries.js"
import { daysLeft, lastReleases, oldest } from "./versions.js"

const connectivity = check("connectivity", [], (_, { facts, thresholds }) => {
  const { connectMs, roundTripMs } = facts.introduction
  const found = `A connection was open after ${millis(connectMs)}; a round trip on it takes ${millis(roundTripMs)}.`
  const roundTrip = levelOf(roundTripMs, thresholds.roundTripMs)
  if (roundTrip !== "ok")
    return [
      {
        severity: roundTrip,
        title: "The server is far away, or slow to answer",
        found,
        advice: "Run the program in the server's own region and network; then look at the load of the server's machine."
      }
    ]
  const connecting = levelOf(connectMs, thresholds.connectMs)
  return connecting === "ok"
    ? [ok("The server answers", found)]
    : [
        {
          severity: connecting,
          title: "Opening a connection is slow",
          found,
          advice:
            "Keep connections open (`minConnections`); look at name resolution, TLS, and the server's load when it starts a process."
        }
      ]
})

/** Addresses that never leave the machine, or the network that its owner has to himself: RFC 1918, RFC 4193. */
const isLoopback = (address: string | null) => address === null || /^(::ffff:)?127\.|^::1$/.test(address)
const isPrivate = (address: string) => /^(::ffff:)?(10\.|192\.168\.|172\.(1[6-9]|2\d|3[01])\.)|^f[cd]/i.test(address)

const tls = check("tls", [], (_, { facts }) => {
  const { address, pooler, tls } = facts.introduction
  const beyond = pooler ? ` Between the pooler and the server: ${facts.server.tls ? "TLS" : "no TLS"}.` : ""
  if (tls !== null) return [ok("The connection is encrypted", `${tls}.${beyond}`)]
  if (isLoopback(address)) return [ok("The connection stays on one machine", `No TLS, and no network.${beyond}`)]
  return [
    {
      severity: isPrivate(address ?? "") ? "info" : "warning",
      title: "The connection is not encrypted",
      found: `No TLS to ${address}: whoever is on the way reads, and changes, what passes.${beyond}`,
      advice:
        "Set `ssl = on` and a certificate on the server, and connect with `sslmode=verify-full` (`&sslrootcert=…` for a certificate of your own)."
    }
  ]
})

const pooler = check("pooler", [], (_, { facts }) =>
  facts.introduction.pooler
    ? [
        {
          severity: "info",
          title: "A pooler is in between",
          found: "The process that answers is not the one that was named when the connection was made.",
          advice:
            "In transaction mode LISTEN, session settings, session advisory locks and prepared statements do not work through it: use the server's own address for those, and for migrations."
        }
      ]
    : [
        ok(
          "No pooler is in between",
          "The process that was named when the connection was made is the one that answers."
        )
      ]
)

const version = check("version", [], (_, { facts, thresholds }) => {
  const { version, version_number } = facts.server
  const major = Math.floor(version_number / 10_000)
  const days = daysLeft(major, facts.at)
  const found = `PostgreSQL ${version}`
  if (days === undefined) return [ok("The version is maintained", `${found}, newer than what is known here.`)]
  if (days > thresholds.endOfLifeDays)
    return [ok("The version is maintained", `${found}, with releases until ${lastReleases[major]}.`)]
  const last = lastReleases[major]
  return [
    days > 0
      ? {
          severity: "info",
          title: "The version is near its end",
          found: `${found}: the last release is due on ${last}.`,
          advice: "Plan the upgrade to a later major version (`pg_upgrade`, or logical replication)."
        }
      : {
          severity: "warning",
          title: "The version gets no more fixes",
          found: `${found}: ${last === undefined ? `older than ${oldest}` : `its last release was on ${last}`}. Security holes stay open.`,
          advice: "Upgrade to a later major version (`pg_upgrade`, or logical replication)."
        }
  ]
})

const encoding = check("encoding", [], (_, { facts }) => {
  const { client_encoding: client, database, server_encoding: server } = facts.server
  const found = `Server ${server}, client ${client}.`
  if (client !== "UTF8")
    return [
      {
        severity: "warning",
        title: "The client's encoding is not UTF8",
        found: `${found} The driver sends and reads UTF-8 whatever the server takes it for.`,
        advice: "Take `client_encoding` out of the connection's parameters, or ALTER ROLE … RESET client_encoding."
      }
    ]
  if (server === "UTF8") return [ok("The encoding is UTF8", found)]
  return [
    {
      severity: server === "SQL_ASCII" ? "warning" : "info",
      title: "The database's encoding is not UTF8",
      found:
        server === "SQL_ASCII"
          ? `${found} Nothing is checked: bytes of any encoding can be stored, and come back as they are.`
          : `${found} Characters that ${server} does not have are refused (22P05).`,
      advice: `Move ${database} to a database with ENCODING 'UTF8': dump it, CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0, restore it.`
    }
  ]
})

/** A number among the settings; 0 where the server does not know it yet. */
const setting = (settings: Subjects["settings"], name: SettingName) => Number(settings.get(name)?.setting ?? 0)

const forOrdinaryRoles = (settings: Subjects["settings"]) => {
  const max = setting(settings, "max_connections")
  const reserved = setting(settings, "superuser_reserved_connections") + setting(settings, "reserved_connections")
  return { max, reserved, ordinary: max - reserved }
}

const recommended = ({ program }: Around, max: number, reserved: number) =>
  PoolSizing.recommend({
    ...program.sizing,
    instances: program.instances,
    maxConnections: max,
    reserved: program.sizing.reserved ?? reserved
  })

const connections = check("connections", ["settings", "connections"], ({ connections, settings }, around) => {
  const { max, ordinary, reserved } = forOrdinaryRoles(settings)
  const used = connections.sessions / ordinary
  const found = `${count(connections.sessions, "session")} of ${ordinary} for ordinary roles (max_connections ${max}, ${reserved} reserved): ${percent(used)}.`
  const level = levelOf(used, around.thresholds.connectionShare)
  return [
    level === "ok"
      ? ok("Connections are free", found)
      : {
          severity: level,
          title: "The server is nearly out of connections",
          found: `${found} Beyond, clients are refused with 53300.`,
          advice:
            "Look who has them (SELECT usename, application_name, state, count(*) FROM pg_stat_activity GROUP BY 1, 2, 3 ORDER BY 4 DESC), lower `maxConnections` of the pools, or put a pooler in front."
        }
  ]
})

const reserved = check("reserved", ["settings"], ({ settings }) =>
  setting(settings, "superuser_reserved_connections") > 0
    ? [
        ok(
          "A superuser gets in when everything is full",
          `superuser_reserved_connections is ${setting(settings, "superuser_reserved_connections")}.`
        )
      ]
    : [
        {
          severity: "warning",
          title: "No connection is reserved for superusers",
          found: "superuser_reserved_connections is 0: when all connections are taken, nobody can look why.",
          advice: "ALTER SYSTEM SET superuser_reserved_connections = 3, and restart the server."
        }
      ]
)

/** Each instance has two more: one for its LISTENs, and one for its health checks. */
const beside = 2

const pool = check("pool", ["settings", "connections"], ({ connections, settings }, around): ReadonlyArray<Said> => {
  const { instances, maxConnections } = around.program
  const { max, ordinary, reserved } = forOrdinaryRoles(settings)
  const limits = [
    { limit: ordinary, of: `the server (max_connections ${max}, ${reserved} reserved)` },
    { limit: connections.role_limit, of: `the role ${around.facts.server.role} (CONNECTION LIMIT)` },
    { limit: connections.database_limit, of: `the database ${around.facts.server.database} (CONNECTION LIMIT)` }
  ].filter(({ limit }) => limit >= 0)
  const { limit, of } = limits.reduce((least, other) => (other.limit < least.limit ? other : least))
  const wanted = (maxConnections + beside) * instances
  const found =
    `${count(instances, "instance")} with up to ${count(maxConnections, "connection")} each, and ${beside} beside the pool, ` +
    `may open ${wanted} of the ${limit} of ${of}`
  const { max: better, reasons } = recommended(around, limit + reserved, reserved)
  const advice = `Set \`maxConnections\` (DB_POOL_MAX) to ${better}. ${reasons.join(" ")}`
  const level = levelOf(limit === 0 ? Number.POSITIVE_INFINITY : wanted / limit, around.thresholds.poolShare)
  if (level !== "ok")
    return [
      {
        severity: level,
        title:
          level === "critical"
            ? "The pools can take more than the server has"
            : "The pools can take nearly all connections",
        found: `${found}. Under load, some will be refused with 53300.`,
        advice
      }
    ]
  if (2 * wanted > limit)
    return [
      {
        severity: "info",
        title: "A deployment may need more connections than there are",
        found: `${found}; twice that, while old and new instances run side by side, is more.`,
        advice: `${advice} Or replace instances one after the other.`
      }
    ]
  return [ok("The pools fit the server", `${found}.`)]
})

export const all: ReadonlyArray<Check> = [connectivity, tls, pooler, version, encoding, connections, reserved, pool]
