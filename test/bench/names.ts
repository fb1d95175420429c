/** Names of contenders that figures are compared by, apart from the contenders: a report needs no driver. */
export const pg = "pg"
export const cockatiel = "pg + cockatiel"
export const bare = "@effect/sql-pg"
export const byHand = "@effect/sql-pg by hand"
export const alone = "ours, the layer alone"
export const everything = "ours, everything on"
