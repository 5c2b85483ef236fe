"""What the fork server has loaded when it forks a worker. Imported there, by name, and only there.

Loading torch, Dask and the engine takes 2 to 3 s of a core. Each worker would do it, again each
time that one is killed and started anew.
"""
# ruff: noqa: F401  # loading is all that these imports are for

import gc
import os

import distributed.nanny

import engine.replica_role
import engine.sandblaster.replica_role
import engine.shard_role
import engine.synchronous.rank
import tasks.problem
import tasks.worker_start

os.setsid()  # what is sent to the flow's process group is not for the server
gc.freeze()  # a collection would write to every page that workers share with it
