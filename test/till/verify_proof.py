#!/usr/bin/env python3
"""An auditor: verifies exported checkpoints and proofs, without a server.

    verify_proof.py ID:PUBLIC_KEY[,ID:PUBLIC_KEY...] FILE [FILE...]
        [--kept CHECKPOINT] [--key ID:SECRET]

FILE - is the standard input.  A file holds one JSON object: what
loyalty.export_checkpoint, inclusion_proof, balance_proof or consistency_proof
returned.  --kept is a checkpoint that was kept before: a proof of consistency
must begin with it, and any other proof of that size must have its root.
--key is a key of the chains, for an auditor who may also check an entry's
hash.  Prints one JSON object a file; exit status 0 where all are good, 1 where
one is not, 2 where the call is wrong.  Needs Python's standard library and,
for Ed25519, verify_token.py beside it.
"""
import argparse
import hashlib
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from verify_token import verify  # noqa: E402

DOMAIN = b"loyalty checkpoint v1"
LEAF = b"loyalty.leaf.v1\0"
ENTRY = b"loyalty.entry.v1\0"


class Wrong(Exception):
    """The proof proves nothing."""


def demand(condition, why):
    if not condition:
        raise Wrong(why)


def node(left, right):
    return hashlib.sha256(b"\1" + left + right).digest()


def leaf_hash(data):
    return hashlib.sha256(b"\0" + data).digest()


def hashes(texts):
    path = [bytes.fromhex(t) for t in texts]
    demand(all(len(h) == 32 for h in path), "a hash of another length")
    return path


def included(leaf, number, size, path, root):
    """RFC 9162, 2.1.3.2."""
    if not 0 <= number < size:
        return False
    fn, sn, at = number, size - 1, leaf
    for p in path:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            at = node(p, at)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            at = node(at, p)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and at == root


def consistent(old, new, path, old_root, root):
    """RFC 9162, 2.1.4.2."""
    if old == new:
        return not path and old_root == root
    if not 0 < old < new:
        return False
    if old & (old - 1) == 0:
        path = [old_root] + path
    if not path:
        return False
    fn, sn = old - 1, new - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    fr = sr = path[0]
    for p in path[1:]:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            fr, sr = node(p, fr), node(p, sr)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = node(sr, p)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and fr == old_root and sr == root


class Reader:
    """Takes fields from canonical bytes."""

    def __init__(self, data, tag):
        demand(data.startswith(tag), "bytes of another kind")
        self.data, self.at = data, len(tag)

    def take(self, n):
        demand(0 <= n <= len(self.data) - self.at, "bytes cut short")
        self.at += n
        return self.data[self.at - n:self.at]

    def number(self, n=8):
        return int.from_bytes(self.take(n), "big", signed=True)

    def string(self):
        n = self.number()
        return None if n == -1 else self.take(n)

    def end(self):
        demand(self.at == len(self.data), "bytes left over")


def checkpoint(c, keys):
    """A checkpoint whose signature is right: its size and root."""
    data, at = bytes.fromhex(c["bytes"]), 0
    demand(len(data) == 92, "a checkpoint of another length")
    size, root = int.from_bytes(data[:8], "big"), data[8:40]
    key_id = int.from_bytes(data[88:92], "big")
    demand((size, root.hex(), key_id) == (c["size"], c["root"], c["key_id"]), "what is said of the checkpoint is not what is signed")
    demand(int.from_bytes(data[40:48], "big") == c["previous_size"] and data[48:80].hex() == c["previous_root"], "what is said of the checkpoint is not what is signed")
    demand(key_id in keys, "unknown key")
    demand(verify(keys[key_id], DOMAIN + data, bytes.fromhex(c["signature"])), "forged checkpoint")
    return size, root


def leaf(proof, size, root):
    """The leaf that a proof shows to be in the checkpoint."""
    data = bytes.fromhex(proof["leaf"]["bytes"])
    demand(included(leaf_hash(data), proof["leaf"]["number"], size, hashes(proof["leaf"]["path"]), root), "the leaf is not in the checkpoint")
    r = Reader(data, LEAF)
    found = {"account_id": r.number(), "first_seq": r.number(), "seq": r.number()}
    found["head"] = r.take(r.number(4))
    found["points"] = r.number()
    r.take(64)
    found["root"] = r.take(32)
    r.end()
    return found


def entry(proof, found, secrets):
    """The entry that a proof shows to be under the leaf."""
    e = proof["entry"]
    data = bytes.fromhex(e["bytes"])
    demand(included(leaf_hash(data), e["number"], found["seq"] - found["first_seq"] + 1, hashes(e["path"]), found["root"]), "the entry is not under the leaf")
    r = Reader(data, ENTRY)
    key_id = r.number()
    r.string()
    shown = {"account_id": r.number(), "seq": r.number(), "kind": r.string().decode(), "points": r.number()}
    has_source, source_id = r.number(), r.number()
    shown["source_id"] = source_id if has_source else None
    r.take(16)
    for name in ("lots", "tally", "breakdown"):
        r.string()
    for name in ("actor", "reason", "key", "detail"):
        text = r.string()
        shown[name] = None if text is None else text.decode()
    body, link = data[:r.at], r.take(33 if key_id else 32)
    r.end()
    demand(shown["account_id"] == found["account_id"] and shown["seq"] == found["first_seq"] + e["number"], "another account's entry")
    demand((shown["account_id"], shown["seq"]) == (e["account_id"], e["seq"]), "what is said of the entry is not what is sealed")
    if key_id == 0:
        demand(hashlib.blake2b(body, digest_size=32).digest() == link, "the entry's hash is wrong")
    elif key_id in secrets:
        demand(bytes([key_id]) + hashlib.blake2b(body, digest_size=32, key=secrets[key_id]).digest() == link, "the entry's hash is wrong")
    demand(shown["seq"] < found["seq"] or link == found["head"], "the last entry is not the account's head")
    return shown


def judge(proof, keys, secrets, kept):
    """What a proof proves."""
    size, root = checkpoint(proof["checkpoint"], keys)
    result = {"good": True, "kind": proof["kind"], "size": size, "root": root.hex(), "sealed_at": proof["checkpoint"]["sealed_at"]}
    if proof["kind"] == "consistency":
        old_size, old_root = checkpoint(proof["old"], keys)
        demand(kept is None or kept == (old_size, old_root), "it does not begin with the checkpoint that was kept")
        demand(consistent(old_size, size, hashes(proof["path"]), old_root, root), "the older checkpoint is not the beginning of the newer")
        result["old_size"] = old_size
        return result
    demand(kept is None or size != kept[0] or root == kept[1], "not the checkpoint that was kept")
    if proof["kind"] == "balance":
        found = leaf(proof, size, root)
        demand((found["account_id"], found["seq"], found["points"]) == (proof["account_id"], proof["seq"], proof["points"]), "what is said of the balance is not what is sealed")
        result.update({name: found[name] for name in ("account_id", "seq", "points")})
    elif proof["kind"] == "entry":
        result["entry"] = entry(proof, leaf(proof, size, root), secrets)
    else:
        demand(proof["kind"] == "checkpoint", "a kind of proof that is none")
    return result


def read(name):
    with (sys.stdin if name == "-" else open(name)) as file:
        return json.load(file)


def pairs(text):
    return {int(p.split(":")[0]): bytes.fromhex(p.split(":")[1]) for p in text.split(",")} if text else {}


def main():
    parser = argparse.ArgumentParser(description="Verifies checkpoints and proofs without a server.")
    parser.add_argument("keys", help="ID:PUBLIC_KEY[,...], hexadecimal, from loyalty.voucher_keys()")
    parser.add_argument("files", nargs="+")
    parser.add_argument("--kept", help="file of a checkpoint that was kept before")
    parser.add_argument("--key", default="", help="ID:SECRET[,...] of the chains")
    args = parser.parse_args()
    keys, good = pairs(args.keys), True
    kept = checkpoint(read(args.kept)["checkpoint"], keys) if args.kept else None
    for name in args.files:
        try:
            result = judge(read(name), keys, pairs(args.key), kept)
        except Wrong as problem:
            result = {"good": False, "why": str(problem)}
        except (KeyError, ValueError, TypeError, AttributeError, IndexError) as problem:
            result = {"good": False, "why": f"damaged: {type(problem).__name__}"}
        good = good and result["good"]
        print(json.dumps(result))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
