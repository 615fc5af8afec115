"""Known answers for keys, tokens, event ids and alias digests, computed with nothing but
Python's hmac, hashlib and json. Run in this directory: python3 vectors.py

The roots are the SHA-256 of public words: this keyset protects nothing."""
import base64
import hashlib
import hmac
import json
import struct


def root(word):
    return hashlib.sha256(word.encode()).digest()


ANCHOR = root("anchor")
ROOTS = {1: root("epoch one"), 2: root("epoch two")}


def hkdf(secret, info, length=32):  # RFC 5869 without salt
    prk = hmac.new(bytes(32), secret, hashlib.sha256).digest()
    out, block, n = b"", b"", 1
    while len(out) < length:
        block = hmac.new(prk, block + info + bytes([n]), hashlib.sha256).digest()
        out, n = out + block, n + 1
    return out[:length]


def key(purpose, epoch):
    secret = ANCHOR if purpose.startswith("event") else ROOTS[epoch]
    return hkdf(secret, b"leerstroom/v1/" + purpose.encode())


def field(b):
    return struct.pack(">I", len(b)) + b


def keyset():
    form = "leerstroom keyset v1"
    epochs = [{"epoch": 1, "state": "active"}, {"epoch": 2, "state": "primary"}]
    text = field(form.encode()) + field(ANCHOR)
    for e in epochs:
        e["root"] = base64.b64encode(ROOTS[e["epoch"]]).decode()
        text += field(struct.pack(">I", e["epoch"])) + field(e["state"].encode()) + field(ROOTS[e["epoch"]])
    return {"format": form, "anchor": base64.b64encode(ANCHOR).decode(), "epochs": epochs,
            "checksum": hashlib.sha256(text).hexdigest()}


def mac(k, text):
    return hmac.new(k, text, hashlib.sha256).digest()[:16].hex()


def frame(*parts):  # little-endian lengths before every part but the last
    return b"".join(struct.pack("<I", len(p)) + p for p in parts[:-1]) + parts[-1]


def write(name, value):
    with open(name, "w") as f:
        json.dump(value, f, indent=1, ensure_ascii=False)
        f.write("\n")


keys = [{"purpose": p, "epoch": e, "key": key(p, e).hex()} for e in (1, 2)
        for p in ("analytics", "alias", "vault", "event", "engine/snappet", "export/2026-11", "event/engine/snappet")]
keys += [{"purpose": "fingerprint", "epoch": e, "key": hkdf(ROOTS[e], b"leerstroom/v1/fingerprint", 8).hex()} for e in (1, 2)]
write("keyset.json", keyset())
write("keys.json", keys)

learner, salt = bytes(range(16)), bytes(range(16, 32))
tokens = [{"purpose": p, "epoch": e, "learner": learner.hex(), "salt": salt.hex(), "token": mac(key(p, e), learner + salt)}
          for e in (1, 2) for p in ("analytics", "engine/snappet", "export/2026-11")]
events = [{"purpose": q, "publisher": p, "id": i, "event": mac(key(q, 1), frame(p.encode(), i.encode()))}
          for q in ("event", "event/engine/snappet")
          for p, i in (("bingel", "b-0001"), ("bingelb", "-0001"), ("bingel", ""), ("méthode", "é\0" + "x" * 200))]
write("../../testdata/tokens.json", {"tokens": tokens, "events": events})

eckid = "https://ketenid.nl/201703/" + hashlib.sha512(b"synthetic").hexdigest()
aliases = [{"epoch": e, "school": s, "scheme": c, "publisher": p, "value": v,
            "digest": mac(key("alias", e), bytes([c]) + frame(s.encode(), p.encode(), v.encode()))}
           for e in (1, 2)
           for s, c, p, v in (("12AB00", 1, "", eckid), ("12AB00", 3, "", "4711"), ("12AB00", 4, "bingel", "4711"), ("99ZZ01", 3, "", "4711"))]
write("../../vault/testdata/aliases.json", aliases)
