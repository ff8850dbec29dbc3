"""Mutation runs: a small fault is put into a copy of the project, and the tests must notice.

python -m Testing.mutants                          # every fault described in Testing/mutants/*.toml
python -m Testing.mutants method                   # those of method.toml, or those whose name holds "method"
python -m Testing.mutants --generate mkd_core/method --limit 50
"""
