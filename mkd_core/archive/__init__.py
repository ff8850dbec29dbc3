"""Whole archives: index them, segment every study once, look at the results.

    index -> ledger (SQLite, one row a series) -> run (Dask workers, weights loaded once) -> export, report, review

The ledger makes a run resumable, not the engine: whatever ends at any moment, the same command goes on.  Needs the
extra ``archive``; nothing here is imported by a click, nor by ``import mkd_core``.
"""
