/** Money: every transfer stored as told, every balance the sum of the stored transfers, and no sum ever read but the one. */
import type { Findings } from "../findings.js"
import { name } from "../findings.js"
import type { Final, StoredTransfer } from "../model.js"

const words = ({ amount, source, target }: Omit<StoredTransfer, "row" | "id">) =>
  `${amount} from ${source} to ${target}`

export const check = ({ add, history, stored }: Findings, { balances, transfers }: Final): void => {
  const { accounts, balance } = history.bank
  const rows = new Map<number, Array<StoredTransfer>>()
  const expected = Array.from({ length: accounts }, () => balance)
  for (const transfer of transfers) {
    const same = rows.get(transfer.id)
    if (same) same.push(transfer)
    else rows.set(transfer.id, [transfer])
    expected[transfer.source]! -= transfer.amount
    expected[transfer.target]! += transfer.amount
  }

  const sum = accounts * balance
  const sumOf = (all: ReadonlyArray<number>) => all.reduce((total, one) => total + one, 0)
  history.transactions.forEach((transaction, place) => {
    for (const operation of transaction.operations) {
      if (operation._tag === "ReadBalances" && operation.balances !== undefined) {
        const seen = sumOf(operation.balances)
        if (operation.balances.length !== accounts || seen !== sum) {
          const what = `${operation.balances.length} accounts with ${seen} in all`
          add("impossible read", `${name(transaction)} read ${what} instead of ${accounts} with ${sum}`)
        }
      }
      if (operation._tag !== "Transfer") continue
      const found = rows.get(operation.id) ?? []
      rows.delete(operation.id)
      stored(place, found.length, () => `transfer ${operation.id}`)
      for (const row of found) {
        if (words(row) !== words(operation)) {
          add(
            "foreign",
            `transfer ${operation.id} of ${name(transaction)} was ${words(operation)} and is ${words(row)}`
          )
        }
      }
      if (operation.row !== undefined && found.length > 0 && !found.some(({ row }) => row === operation.row)) {
        const is = found.map(({ row }) => row).join(", ")
        add(
          "returned",
          `${name(transaction)} was told row ${operation.row} for transfer ${operation.id}, which is ${is}`
        )
      }
    }
  })
  for (const id of rows.keys()) add("foreign", `transfer ${id} is stored, which nobody made`)

  if (sumOf(balances) !== sum) add("sum", `all accounts together hold ${sumOf(balances)} instead of ${sum}`)
  expected.forEach((should, account) => {
    if (balances[account] !== should) {
      add("balance", `account ${account} holds ${balances[account]}, its stored transfers make it ${should}`)
    }
  })
}
