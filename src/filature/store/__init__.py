"""What outlives a request. So far in memory and bounded; the ledger's database comes here."""
