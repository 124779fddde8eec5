"""Coverage-guided fuzzing of what reads strangers' bytes. ``make fuzz`` runs it; each target's ``check`` raises where
something must not be, and is run over the seeds by the tests, too."""
