/**
 * The part of the classification table that is not about SQLSTATEs: codes of the system, messages of driver and poolers.
 *
 * Sources: node-postgres 8.23, Node 20, PgBouncer 1.10 to 1.25, Supavisor.
 */
import { backoff, byBeginning, group, type Rule, replaced, unnamed } from "./rule.js"

const fixTls = "correct the certificate or the ssl options"

/** Errors of the operating system, of Node's sockets and of TLS, by their `code`. */
export const systemCodes: ReadonlyArray<Rule> = [
  ...group(
    "ConnectionError",
    "transient",
    {
      EAI_AGAIN: "the name server does not answer",
      ECONNREFUSED: "nobody listens there",
      EHOSTDOWN: "the host is down",
      EHOSTUNREACH: "the host cannot be reached",
      ENETDOWN: "the network is down",
      ENETUNREACH: "the network cannot be reached",
      ENOENT: "the server's socket file does not exist",
      ETIMEDOUT: "the other end does not answer"
    },
    { advice: "check host, port and firewall, and whether the server runs" }
  ),
  ...group(
    "ConnectionError",
    "transient",
    {
      EADDRNOTAVAIL: "no local address or port is free",
      EMFILE: "the program has too many open files",
      ENFILE: "the system has too many open files"
    },
    { advice: "open fewer connections, or raise the system's limit" }
  ),
  ...group(
    "ConnectionError",
    "transient",
    {
      ECONNABORTED: "the connection was aborted",
      ECONNRESET: "the other end reset the connection",
      ENETRESET: "the network reset the connection",
      ENOTCONN: "the socket is not connected",
      EPIPE: "the other end has closed the connection",
      EPROTO: "the TLS conversation broke",
      "ERR_SOCKET_*": "the socket is closed",
      "ERR_SSL_*": "the TLS conversation broke",
      "ERR_STREAM_*": "the socket is closed",
      ERR_TLS_HANDSHAKE_TIMEOUT: "the TLS handshake took too long",
      ESHUTDOWN: "the socket is shut down"
    },
    { advice: replaced }
  ),
  ...group(
    "ConnectionError",
    "permanent",
    {
      EACCES: "the system does not allow this connection",
      "EAI_*": "the host's name could not be resolved",
      ENOTFOUND: "the host is unknown",
      EPERM: "the system does not allow this connection",
      ERR_SOCKET_BAD_PORT: "the port is not a valid one"
    },
    { advice: "check host, port and permissions" }
  ),
  ...group(
    "ConnectionError",
    "permanent",
    {
      "CERT_*": "the server's certificate is not acceptable",
      CERT_HAS_EXPIRED: "the server's certificate has expired",
      CERT_NOT_YET_VALID: "the server's certificate is not valid yet",
      "CRL_*": "the list of revoked certificates is not acceptable",
      DEPTH_ZERO_SELF_SIGNED_CERT: "the server's certificate is signed by itself",
      "ERR_OSSL_*": "a TLS key or certificate cannot be read",
      "ERR_SSL_SSLV3_ALERT_*": "the other end refused the TLS handshake",
      "ERR_SSL_TLSV1_ALERT_*": "the other end refused the TLS handshake",
      "ERR_SSL_TLSV13_ALERT_*": "the other end refused the TLS handshake",
      ERR_SSL_UNSUPPORTED_PROTOCOL: "the two ends share no TLS version",
      ERR_SSL_WRONG_VERSION_NUMBER: "the other end does not speak TLS",
      "ERR_TLS_*": "TLS is not set up correctly",
      ERR_TLS_CERT_ALTNAME_INVALID: "the certificate belongs to another host",
      HOSTNAME_MISMATCH: "the certificate belongs to another host",
      INVALID_CA: "the server's authority is not a valid one",
      INVALID_PURPOSE: "the server's certificate is for another purpose",
      SELF_SIGNED_CERT_IN_CHAIN: "the server's authority is not trusted",
      "UNABLE_TO_*": "the server's certificate cannot be verified"
    },
    { advice: fixTls }
  )
]

/** Errors that `pg`, `pg-pool` and `@effect/sql-pg` make themselves, without a code, by the beginning of their message. */
export const driverMessages: ReadonlyArray<Rule> = [
  ...group(
    "ConnectionError",
    "transient",
    {
      "Client has encountered a connection error and is not queryable": "the connection was lost before",
      "Client was closed and is not queryable": "the connection was closed before",
      "Connection terminated": "the connection was closed",
      "Connection terminated due to connection timeout": "connecting took too long",
      "Connection terminated unexpectedly": "the connection was lost",
      "Connection timed out": "connecting took too long",
      "No client returned": "the pool gave no connection",
      "Received unexpected ": "the server sent what nobody asked for",
      "There was an error establishing an SSL connection": "the server refused to begin TLS",
      "received invalid response": "the other end does not speak PostgreSQL's protocol",
      "timeout expired": "connecting took too long"
    },
    { advice: replaced }
  ),
  ...group(
    "ConnectionError",
    "permanent",
    { "The server does not support SSL connections": "the server does not support TLS" },
    { advice: fixTls }
  ),
  ...group(
    "PoolTimeoutError",
    "transient",
    { "timeout exceeded when trying to connect": "no connection came free in time" },
    { advice: "hold connections for less time, or make the pool larger" }
  ),
  ...group("PoolClosedError", "permanent", {
    "Called end on pool more than once": "the pool is closed",
    "Cannot use a pool after calling end on the pool": "the pool is closed"
  }),
  ...group("QueryTimeoutError", "transient", { "Query read timeout": "no answer came within query_timeout" }),
  ...group(
    "AuthenticationError",
    "permanent",
    {
      "Password must be a string": "the password is not a text",
      "SASL: ": "the password could not be checked",
      "Unknown authenticationOk message type": "the server asks for an authentication that the driver does not know"
    },
    { advice: "check the password, and what provides it" }
  ),
  ...group("UnknownError", "permanent", {
    "A query must have either text or a name": "the statement has no text",
    "Client has already been connected": "a client was connected twice",
    "Client was passed a null or undefined query": "the statement has no text",
    "Prepared statements must be unique": "two prepared statements have one name",
    "Query values must be an array": "the parameters are not an array",
    "Release called on client which has already been released": "a connection was given back twice"
  })
]

/**
 * Errors of poolers, by the beginning of their message: PgBouncer's are 08P01 by default, Supavisor's XX000. Looked up
 * only for answers without a routine, which PostgreSQL itself always names. PgBouncer closes the connection after each of
 * them, and before 1.16 calls each an ERROR, the loss of its server included: hence only rows that settle are final.
 */
export const poolerMessages: ReadonlyArray<Rule> = [
  ...group(
    "TooManyConnectionsError",
    "transient",
    {
      "(ECHECKOUT": "the pooler had no connection in time",
      "(EMAXCONN": "the pooler takes no more clients",
      "Max client connections reached": "the pooler takes no more clients",
      MaxClientsInSessionMode: "the pooler takes no more clients",
      "client connections exceeded": "the pooler takes no more clients",
      "no more connections allowed": "the pooler takes no more clients",
      query_wait_timeout: "the pooler had no connection in time"
    },
    { settles: true, advice: "wait, or let the pooler have more connections" }
  ),
  ...group(
    "ServerUnavailableError",
    "transient",
    {
      "(ECIRCUITBREAKER)": "the pooler refuses work for a while",
      "(EPOOLTERMINATING)": "the pooler is stopping",
      client_login_timeout: "the pooler could not reach the server",
      "pooler is shutting down": "the pooler is stopping",
      "server login has been failing": "the pooler cannot log in to the server",
      "server shutting down": "the pooler is stopping"
    },
    { settles: true, advice: backoff }
  ),
  ...group("ServerUnavailableError", "transient", { "admin forced disconnect": "the pooler ended the session" }),
  ...group(
    "ConnectionError",
    "transient",
    {
      "(EDBHANDLEREXITED)": "the pooler lost its connection to the server",
      "client unexpected eof": "the pooler lost this connection",
      client_idle_timeout: "the pooler ended the session because it sat idle",
      "server conn crashed?": "the pooler lost its connection to the server",
      "server connection closed": "the pooler lost its connection to the server",
      "unexpected eof": "the pooler lost its connection to the server"
    },
    { advice: replaced }
  ),
  ...group(
    "ConnectionError",
    "permanent",
    {
      "Feature not supported: RDS Proxy": "the pooler does not accept a startup option",
      "SSL required": "the pooler takes TLS connections only",
      "bouncer config error": "the pooler is not set up correctly",
      "no such database": "the database is not known",
      "unsupported startup parameter": "the pooler does not accept a startup parameter"
    },
    { settles: true, advice: "correct the pooler's configuration or the program's" }
  ),
  ...group("ConnectionError", "permanent", {
    "idle transaction timeout": "the pooler ended the session because its transaction sat idle"
  }),
  ...group("QueryTimeoutError", "transient", {
    "query timeout": "the pooler gave up waiting for the server's answer",
    query_timeout: "the pooler gave up waiting for the server's answer",
    "transaction timeout": "the pooler ended the session because its transaction took too long"
  }),
  ...group(
    "AuthenticationError",
    "permanent",
    {
      "(ENOTFOUND)": "neither tenant nor role is known",
      "SASL authentication failed": "the password was refused",
      "Tenant or user not found": "neither tenant nor role is known",
      "certificate authentication failed": "the client's certificate was refused",
      "login rejected": "the role was refused",
      "no such user": "the role is not known",
      "password authentication failed": "the password was refused"
    },
    { settles: true, advice: "check user and password, here and in the pooler" }
  ),
  ...group(
    "UnknownError",
    "transient",
    {
      "prepared statement did not exist": "a prepared statement is not known on this connection",
      "prepared statement name is already in use": "a prepared statement exists already on this connection"
    },
    { settles: true, advice: unnamed }
  )
]

const exactCodes = new Map(systemCodes.map((row) => [row.match, row]))
const codeBeginnings = byBeginning(systemCodes.filter((row) => row.match.endsWith("*")))

/** The row for the code of a socket, name service or TLS failure. */
export const bySystemCode = (code: string): Rule | undefined => exactCodes.get(code) ?? codeBeginnings(code)

/** The row for an error that the driver made itself. */
export const byDriverMessage = byBeginning(driverMessages)

/** The row for an error of a pooler. */
export const byPoolerMessage = byBeginning(poolerMessages)
