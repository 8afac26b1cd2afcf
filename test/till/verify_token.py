#!/usr/bin/env python3
"""A till: verifies vouchers' tokens offline, with public keys alone.

    verify_token.py ID:PUBLIC_KEY[,ID:PUBLIC_KEY...] TOKEN
        [--on YYYY-MM-DD] [--member MEMBER_ID] [--program PROGRAM_ID]

TOKEN - reads tokens from the standard input, one a line.  Prints one JSON
object a token; exit status 0 where all are good, 1 where one is not, 2 where
the call is wrong.  Needs Python's standard library and nothing else: Ed25519
is verified here as RFC 8032 says (5.1.7).  It keeps no secret, so that it
need not run in constant time.
"""
import argparse
import datetime
import hashlib
import json
import sys

# ---- Ed25519, verification only

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT = pow(2, (P - 1) // 4, P)


def recover_x(y, sign):
    """The x of a point; None where there is none."""
    if y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * ROOT % P
    if (x * x - square) % P or (x == 0 and sign):
        return None
    return P - x if x & 1 != sign else x


def decompress(data):
    """A point in extended coordinates; None where the bytes are none."""
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & ((1 << 255) - 1)
    x = recover_x(y, sign)
    return None if x is None else (x, y, 1, x * y % P)


def add(p, q):
    """The sum of two points."""
    a = (p[1] - p[0]) * (q[1] - q[0]) % P
    b = (p[1] + p[0]) * (q[1] + q[0]) % P
    c = 2 * p[3] * q[3] * D % P
    d = 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def multiply(n, point):
    """A point n times."""
    result = (0, 1, 1, 0)
    while n:
        if n & 1:
            result = add(result, point)
        point = add(point, point)
        n >>= 1
    return result


def same(p, q):
    """Whether two points are one."""
    return (p[0] * q[2] - q[0] * p[2]) % P == 0 and (p[1] * q[2] - q[1] * p[2]) % P == 0


BASE_Y = 4 * pow(5, P - 2, P) % P
BASE = (recover_x(BASE_Y, 0), BASE_Y, 1, recover_x(BASE_Y, 0) * BASE_Y % P)


def verify(public_key, message, signature):
    """Whether a signature is the key's over the message."""
    if len(public_key) != 32 or len(signature) != 64:
        return False
    a, r = decompress(public_key), decompress(signature[:32])
    s = int.from_bytes(signature[32:], "little")
    if a is None or r is None or s >= L:
        return False
    if same(multiply(8, a), (0, 1, 1, 0)):
        return False  # a key of small order signs anything
    h = int.from_bytes(hashlib.sha512(signature[:32] + public_key + message).digest(), "little") % L
    return same(multiply(s, BASE), add(r, multiply(h, a)))


# ---- the token

LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
KINDS = ("amount", "percent", "product", "service", "shipping", "event", "donation", "partner", "points")
LAST_DAY = 2921939
MAX_VALUE = 10**16


class Damaged(Exception):
    """The text is no token."""


def decode_text(text):
    """Crockford's base32, strictly; hyphens, small letters, I, L and O are forgiven."""
    if len(text) > 512 or not text.isascii():
        raise Damaged("no token's text")
    value = count = 0
    for letter in text.upper().replace("-", ""):
        letter = {"I": "1", "L": "1", "O": "0"}.get(letter, letter)
        if letter not in LETTERS:
            raise Damaged("a letter that is none")
        value = value << 5 | LETTERS.index(letter)
        count += 5
    if count % 8 >= 5 or value & ((1 << count % 8) - 1):
        raise Damaged("bits left over")
    return (value >> count % 8).to_bytes(count // 8, "big")


class Reader:
    """Takes a token's fields from its bytes."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        if self.at + n > len(self.data):
            raise Damaged("too short")
        self.at += n
        return self.data[self.at - n:self.at]

    def byte(self):
        return self.take(1)[0]

    def number(self, low, high):
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
            if shift > 63:
                raise Damaged("an endless number")
        if (byte == 0 and shift > 7) or not low <= value <= high:
            raise Damaged("a number out of range")
        return value


def day(number):
    """A date from days since 2000-01-01."""
    return (datetime.date(2000, 1, 1) + datetime.timedelta(number)).isoformat()


def decode(data):
    """A token's fields, the bytes that are signed, the signature."""
    r = Reader(data)
    if r.byte() != 1:
        raise Damaged("another version")
    token = {"key_id": r.byte()}
    token["voucher_id"] = r.number(1, 2**63 - 1)
    token["program_id"] = r.number(1, 2**31 - 1)
    kind = r.byte()
    if token["key_id"] == 0 or kind & 0x80 or not 1 <= kind & 15 <= len(KINDS):
        raise Damaged("a kind that is none")
    token["kind"] = KINDS[(kind & 15) - 1]
    value = r.number(0, MAX_VALUE)
    token["value"] = None if value == 0 else f"{value // 10000}.{value % 10000:04d}".rstrip("0").rstrip(".")
    token["currency"] = None
    if kind & 0x20:
        currency = r.take(3)
        if any(not 65 <= c <= 90 for c in currency):
            raise Damaged("a currency that is none")
        token["currency"] = currency.decode()
    first = r.number(0, LAST_DAY)
    days = r.number(0, LAST_DAY - first + 1)
    token["valid_from"] = day(first)
    token["valid_until"] = day(first + days - 1) if days else None
    token["member_tag"] = r.take(4).hex() if kind & 0x10 else None
    token["sku"] = None
    if kind & 0x40:
        sku = r.take(r.number(1, 32))
        if any(not 32 <= c <= 126 for c in sku):
            raise Damaged("an article that is none")
        token["sku"] = sku.decode()
    token["nonce"] = r.take(8).hex()
    body = data[:r.at]
    signature = r.take(64)
    if r.at != len(data):
        raise Damaged("too long")
    return token, b"loyalty voucher v1" + body, signature


def member_tag(member_id, nonce):
    """What stands in a token for a member."""
    return hashlib.sha512(b"loyalty member v1" + nonce + member_id.to_bytes(8, "big")).digest()[:4]


def judge(text, keys, on, member, program):
    """All that a till can say of a token without asking anybody."""
    try:
        token, message, signature = decode(decode_text(text))
    except Damaged as problem:
        return {"good": False, "why": f"damaged: {problem}"}
    key = keys.get(token["key_id"])
    if key is None:
        token.update(good=False, why="unknown key")
    elif not verify(key, message, signature):
        token.update(good=False, why="forged")
    elif program is not None and token["program_id"] != program:
        token.update(good=False, why="another programme")
    elif on < token["valid_from"]:
        token.update(good=False, why="not yet valid")
    elif token["valid_until"] is not None and on > token["valid_until"]:
        token.update(good=False, why="expired")
    elif token["member_tag"] is not None and member is not None and \
            member_tag(member, bytes.fromhex(token["nonce"])).hex() != token["member_tag"]:
        token.update(good=False, why="another member")
    else:
        token.update(good=True, why=None)
    return token


def main():
    parser = argparse.ArgumentParser(description="Verifies vouchers offline.")
    parser.add_argument("keys", help="ID:PUBLIC_KEY[,...], hexadecimal, from loyalty.voucher_keys()")
    parser.add_argument("token")
    parser.add_argument("--on", default=datetime.date.today().isoformat())
    parser.add_argument("--member", type=int)
    parser.add_argument("--program", type=int)
    args = parser.parse_args()
    keys = {int(k.split(":")[0]): bytes.fromhex(k.split(":")[1]) for k in args.keys.split(",")}
    tokens = [line.rstrip("\n") for line in sys.stdin] if args.token == "-" else [args.token]
    results = [judge(t, keys, args.on, args.member, args.program) for t in tokens]
    for result in results:
        print(json.dumps(result))
    return 0 if all(r["good"] for r in results) else 1


if __name__ == "__main__":
    sys.exit(main())
