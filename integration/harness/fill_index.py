#!/usr/bin/python3
"""Puts entries of data objects into a volume's index (src/store/rados/key.rs) without making the objects: a listing finds so many.
A program of its own, because Ceph's library for Python is Debian's, and the tests' memory stays small.
Usage: fill_index.py CONF POOL NAMESPACE VOLUME-ID FIRST-BLOCK COUNT"""

import sys

import rados

SHARD_BITS = 15
# Of the epoch that a new volume is in, whose objects a collection lets alone: it does not know what their writer is about.
EPOCH = 1
BATCH = 2000


def set_entries(pool, index: str, entries: list):
    with rados.WriteOpCtx() as operation:
        pool.set_omap(operation, tuple(entries), (b"",) * len(entries))
        pool.operate_write_op(operation, index)


def main():
    conf, pool_name, namespace, volume = sys.argv[1:5]
    first, count = map(int, sys.argv[5:])
    with rados.Rados(conffile=conf) as cluster, cluster.open_ioctx(pool_name) as pool:
        pool.set_namespace(namespace)
        for start in range(first, first + count, BATCH):
            shards = {}
            for block in range(start, min(start + BATCH, first + count)):
                shards.setdefault(block >> SHARD_BITS, []).append(f"{EPOCH:016x}.{block:016x}")
            set_entries(pool, f"{volume}.m", [f"d.{shard:016x}" for shard in shards])
            for shard, entries in shards.items():
                set_entries(pool, f"{volume}.i.{shard:016x}", entries)


main()
