"""Checks a webhook's signature as a receiver does, with another library than the server's.

Reads {"headers": …, "body": "<hex>", "keys": <key set>} from stdin; ends with 0 if a key fits.
"""

import base64
import hashlib
import json
import sys
import time

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

call = json.load(sys.stdin)
headers = {name.lower(): value for name, value in call["headers"].items()}
body = bytes.fromhex(call["body"])
timestamp = headers["x-fal-webhook-timestamp"]
assert abs(time.time() - int(timestamp)) < 300, "the clock is off"
message = "\n".join(
    [
        headers["x-fal-webhook-request-id"],
        headers["x-fal-webhook-user-id"],
        timestamp,
        hashlib.sha256(body).hexdigest(),
    ]
)
signature = bytes.fromhex(headers["x-fal-webhook-signature"])


def fits(key):
    x = key["x"]
    public = Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(x + "=" * (-len(x) % 4)))
    try:
        public.verify(signature, message.encode())
    except InvalidSignature:
        return False
    return True


sys.exit(0 if any(fits(key) for key in call["keys"]["keys"]) else "no key fits the signature")
