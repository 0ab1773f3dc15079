"""A second verifier of Writ receipts, written from contracts and RFCs alone: it shares no code with the first.

    python3 verify.py FOLDER      prints {title: {verdict, code}} for the corpus in FOLDER
"""

import base64
import hashlib
import json
import re
import sys

import ed25519

CLASSES = {
    "UNTRUSTED": {"KEY_WEAK", "NO_TRUST", "KEYS", "UNKNOWN_KEY", "UNKNOWN_KIND", "UNKNOWN_APPROVER"},
    "INCOMPLETE": {"GAP", "STALE", "DANGLING"},
    "EQUIVOCATION": {"FORK"},
}
THUMBPRINT = re.compile(r"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]\Z")
HASH = re.compile(r"[A-Za-z0-9_-]{43}\Z")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
ROOT = re.compile(r"[A-Za-z0-9+/]{43}=\Z")
CODE = re.compile(r"[a-z][a-z0-9_.-]{0,63}\Z")
SAFE = 2**53 - 1


class Bad(Exception):
    def __init__(self, code):
        super().__init__(code)
        self.code = code


def need(condition, code):
    if not condition:
        raise Bad(code)


# --- encodings ---------------------------------------------------------------------------------------------------


def unb64url(text):
    need(re.fullmatch(r"[A-Za-z0-9_-]*", text) and len(text) % 4 != 1, "ENCODING")
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    need(b64url(data) == text, "ENCODING")
    return data


def b64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def strict_json(data, fractions=False):
    def pairs(items):
        names = [name for name, _ in items]
        if len(set(names)) != len(names) or "__proto__" in names:
            raise ValueError("names")
        return dict(items)

    def integer(text):
        if text == "-0" and not fractions or abs(int(text)) > SAFE:
            raise ValueError("integer")
        return int(text)

    def fraction(text):
        if not fractions:
            raise ValueError("fraction")
        return float(text)

    def constant(_):
        raise ValueError("constant")

    def walk(value, depth):
        if isinstance(value, str):
            value.encode("utf-8")
            if any(0xFDD0 <= ord(c) <= 0xFDEF or ord(c) & 0xFFFE == 0xFFFE for c in value):
                raise ValueError("noncharacter")
        elif isinstance(value, (dict, list)):
            if depth > 16:
                raise ValueError("depth")
            for item in value if isinstance(value, list) else [*value.keys(), *value.values()]:
                walk(item, depth + 1)

    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=pairs, parse_int=integer, parse_float=fraction, parse_constant=constant)
        walk(value, 1)
    except (ValueError, RecursionError):
        raise Bad("JSON") from None
    return value


def canonical(value):
    """RFC 8785 for values without fractions and with names of ASCII, as statements and references have them."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def sha256(data):
    return hashlib.sha256(data).digest()


def digest_of(text):
    return "sha256:" + sha256(text.encode()).hex()


# --- compact JWS -------------------------------------------------------------------------------------------------


def parse_compact(text, typ, limit=16 * 1024):
    need(len(text) <= 4 * 1024 * 1024, "LIMIT")
    need(not re.match(r"\s*[{\[]", text), "FORM")
    need(re.fullmatch(r"[A-Za-z0-9_.-]*", text), "ENCODING")
    parts = text.split(".")
    need(len(parts) == 3, "FORM")
    header = strict_json(unb64url(parts[0]))
    need(isinstance(header, dict), "JSON")
    alg = header.get("alg")
    need(alg not in ("ES256", "ML-DSA-44"), "KEY_ALG")
    need(alg == "Ed25519", "ALG")
    need(set(header) <= {"alg", "typ", "kid"}, "HEADER")
    need(header.get("typ") == typ, "TYP")
    need(isinstance(header.get("kid"), str) and THUMBPRINT.match(header["kid"]), "KID")
    need(len(text) <= limit, "LIMIT")
    payload = unb64url(parts[1])
    need(not re.fullmatch(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_.-]*", payload), "FORM")
    signature = unb64url(parts[2])
    need(len(signature) == 64, "SIG")
    return header["kid"], payload, (parts[0] + "." + parts[1]).encode(), signature


def parse_object(data):
    value = strict_json(data)
    need(isinstance(value, dict), "JSON")
    return value


def thumbprint(x):
    return b64url(sha256(('{"crv":"Ed25519","kty":"OKP","x":"%s"}' % x).encode()))


class Key:
    known, checked = {}, {}

    def __init__(self, x):
        self.x, self.kid, self.refusal, self.point = x, thumbprint(x), None, None
        try:
            self.bytes = unb64url(x)
            need(len(self.bytes) == 32, "KEY_WEAK")
            self.point = ed25519.sound_key(self.bytes)
            self.refusal = None if self.point else "KEY_WEAK"
        except ed25519.NotCanonical:
            self.refusal = "SIG"
        except Bad:
            self.refusal = "KEY_WEAK"

    @classmethod
    def of(cls, x):
        if x not in cls.known:
            cls.known[x] = cls(x)
        return cls.known[x]

    def verify(self, message, signature):
        need(self.refusal is None, self.refusal)
        asked = (self.x, message, signature)
        if asked not in self.checked:
            self.checked[asked] = ed25519.verify(self.point, self.bytes, message, signature)
        return self.checked[asked]


# --- keys and trust ----------------------------------------------------------------------------------------------


def key_entries(jwks):
    need(isinstance(jwks, list) and jwks, "JSON")
    entries = {}
    for jwk in jwks:
        need(isinstance(jwk, dict), "JSON")
        need(set(jwk) <= {"kty", "crv", "alg", "use", "kid", "x", "role", "from", "until"}, "HEADER")
        need(jwk.get("kty") == "OKP" and jwk.get("crv") == "Ed25519", "KEY_ALG")
        need(jwk.get("alg", "Ed25519") == "Ed25519" and jwk.get("use", "sig") == "sig", "KEY_ALG")
        need(isinstance(jwk.get("x"), str), "JSON")
        kid = thumbprint(jwk["x"])
        need(jwk.get("kid", kid) == kid and kid not in entries, "KID")
        role, start, until = jwk.get("role", "receipt"), jwk.get("from", 0), jwk.get("until")
        need(role in ("root", "receipt", "log"), "JSON")
        need(type(start) is int and start >= 0 and (until is None or type(until) is int and until >= start), "JSON")
        entries[kid] = {"kid": kid, "x": jwk["x"], "role": role, "from": start, "until": until}
    return entries


def open_key_set(text, pinned):
    kid, payload, signed, signature = parse_compact(text, "writ-keys+jwt", 512 * 1024)
    root = pinned or kid
    need(kid == root, "KID")
    claims = parse_object(payload)
    entries = key_entries(claims.get("keys"))
    ranges = sorted((e["from"], e["until"]) for e in entries.values() if e["role"] == "receipt" and e["until"] is not None)
    ranges += [(e["from"], e["until"]) for e in entries.values() if e["role"] == "receipt" and e["until"] is None]
    need(all(a[1] is not None and a[1] <= b[0] for a, b in zip(ranges, ranges[1:])), "KID")
    need(root in entries and entries[root]["role"] == "root", "KID")
    need(Key.of(entries[root]["x"]).verify(signed, signature), "SIG")
    need(claims.get("iss") == "urn:writ:" + root and claims.get("aud") == "urn:writ:aud:keys" and type(claims.get("iat")) is int, "JSON")
    return root, entries


class Trust:
    def __init__(self, given):
        self.root, self.keys, self.refused, self.any = None, {}, False, bool(given)
        try:
            text, root = given.get("file", given.get("own", "")).strip(), given.get("root")
            file = strict_json(text.encode(), fractions=True) if text.startswith("{") else {"key_set": text}
            if isinstance(file.get("key_set"), str) and text:
                self.root, self.keys = open_key_set(file["key_set"], root)
            elif text:
                self.from_jwks(file, root)
            else:
                need("root" not in given, "KEYS")
        except Bad:
            self.refused = True

    def from_jwks(self, file, root):
        need(root is None, "KID")
        need(isinstance(file.get("keys"), list), "JSON")
        kept = []
        for jwk in file["keys"]:
            need("d" not in jwk, "HEADER")
            if jwk.get("kty") == "OKP" and jwk.get("crv") == "Ed25519":
                kept.append({n: v for n, v in jwk.items() if n in ("kty", "crv", "x", "kid", "alg", "use", "role", "from", "until")})
        self.keys = key_entries(kept)
        self.root = next((k for k, e in self.keys.items() if e["role"] == "root"), None)


# --- the profile -------------------------------------------------------------------------------------------------


def count(value):
    return type(value) is int and value >= 0


def text(limit):
    return lambda value: isinstance(value, str) and len(value.encode("utf-16-le")) // 2 <= limit


def match(pattern):
    return lambda value: isinstance(value, str) and pattern.match(value) is not None


def one_of(*values):
    return lambda value: isinstance(value, str) and value in values


def members(required, optional=()):
    optional = dict(optional)

    def check(value):
        if not isinstance(value, dict) or not set(required) <= set(value) <= set(required) | set(optional):
            return False
        return all({**required, **optional}[name](item) for name, item in value.items())

    return check


def either(*checks):
    return lambda value: any(check(value) for check in checks)


def items(check, least, most):
    return lambda value: isinstance(value, list) and least <= len(value) <= most and all(check(item) for item in value)


def mapping(name, check):
    return lambda value: isinstance(value, dict) and all(name(n) and check(v) for n, v in value.items())


def null(value):
    return value is None


MANIFEST = members({"digest": match(DIGEST), "count": count})
NAME = either(text(256), MANIFEST)
REFERENCE = members({"digest": match(DIGEST), "index": count})
ISOLATION = one_of("host", "process", "namespaces", "container", "user-kernel", "vm")
COMMON = {"kind": text(16), "log": members({"origin": text(10**6), "size": count, "root": match(ROOT)})}
ASSERTED = either(text(256), lambda v: type(v) in (int, bool), null, MANIFEST)
OPTIONAL = {"asserted": mapping(text(64), ASSERTED), "_sd": items(match(HASH), 1, 16)}


def listed(check):
    return either(items(check, 0, 8), MANIFEST)


COUNTS = ("output_bytes", "dropped_bytes", "redactions", "egress_allowed", "egress_blocked", "files", "withheld_files")
ENDS = ("denied", "rejected", "expired", "superseded", "succeeded", "failed", "timed_out", "cancelled", "unknown")
PREDICATES = {
    "decision": members(
        {
            **COMMON,
            "invocationId": text(64),
            "result": one_of("allow", "deny", "pending", "error"),
            "decision": text(64),
            "target_ref": NAME,
            "intent": NAME,
            "isolation": ISOLATION,
            "lanes": listed(text(32)),
            "generation": count,
            "policy": match(DIGEST),
            "input": match(DIGEST),
            "requirement": either(match(DIGEST), null),
            "approvals": listed(REFERENCE),
        },
        OPTIONAL,
    ),
    "approval": members(
        {
            **COMMON,
            "invocationId": text(64),
            "verdict": one_of("approve", "reject"),
            "stage": NAME,
            "evidence": one_of("passkey", "key", "bearer"),
            "statement": match(DIGEST),
            "requirement": match(DIGEST),
        },
        OPTIONAL,
    ),
    "outcome": members(
        {
            **COMMON,
            "invocationId": text(64),
            "decisionRef": REFERENCE,
            "status": one_of(*ENDS),
            "effect": one_of("observed", "dispatched", "none"),
            "exits": listed(either(lambda v: type(v) is int, null)),
            "counts": members({name: count for name in COUNTS}),
            "revocation": one_of("done", "pending"),
            "isolation": either(ISOLATION, null),
        },
        OPTIONAL,
    ),
    "denials": members(
        {
            **COMMON,
            "from": count,
            "until": count,
            "counts": either(mapping(match(CODE), count), MANIFEST),
            "inputs": members({"root": match(ROOT), "count": count}),
        },
        OPTIONAL,
    ),
    "policy": members(
        {**COMMON, "what": one_of("generation", "approvers", "token"), "reason": match(CODE)},
        {**OPTIONAL, "generation": count, "modules": listed(match(DIGEST)), "count": count},
    ),
    "key": members({**COMMON, "reason": match(CODE), "outgoing": match(HASH), "incoming": match(HASH), "change": text(8192)}, OPTIONAL),
    "genesis": members(
        {
            **COMMON,
            "root": match(HASH),
            "keys": items(members({"kid": match(HASH), "role": one_of("root", "receipt", "log"), "from": count}), 1, 8),
        },
        OPTIONAL,
    ),
}
UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\Z")
CLAIMS = members(
    {
        "iss": text(10**6),
        "aud": one_of("urn:writ:aud:receipt"),
        "iat": count,
        "toe": count,
        "jti": match(UUID7),
        "_type": one_of("https://in-toto.io/Statement/v1"),
        "subject": items(members({"name": text(256), "digest": members({"sha256": match(re.compile(r"[0-9a-f]{64}\Z"))})}), 1, 8),
        "predicateType": one_of("urn:writ:receipt:v1"),
        "predicate": lambda value: PREDICATES[value["kind"]](value),
    },
    {"sub": text(256), "act": members({"sub": text(256)}), "txn": text(64), "_sd_alg": one_of("sha-256")},
)


EFFECTS = {
    "none": {"denied", "rejected", "expired", "superseded", "failed", "cancelled"},
    "observed": {"succeeded", "failed", "timed_out", "cancelled"},
    "dispatched": {"unknown"},
}


def check_end(end, names):
    need(end["status"] in EFFECTS[end["effect"]], "PROFILE")
    if end["effect"] == "none":
        need(end["isolation"] is None and end["exits"] == [] and names == ["plan"], "PROFILE")
    if end["effect"] == "observed":
        need(end["isolation"] is not None, "PROFILE")
    if end["status"] == "succeeded" and isinstance(end["exits"], list):
        need(end["exits"] and None not in end["exits"], "PROFILE")
    if names != ["plan"]:
        many = re.fullmatch(r"([0-9]{1,9}) subjects", names[0]) if len(names) == 1 else None
        need(many or names == ["output-%d" % (at + 1) for at in range(len(names))], "PROFILE")
        need((int(many[1]) if many else len(names)) <= end["counts"]["files"], "PROFILE")


def check_claims(claims):
    need(claims.get("aud") == "urn:writ:aud:receipt", "AUD")
    need(claims.get("predicateType") == "urn:writ:receipt:v1", "UNKNOWN_KIND")
    predicate = claims.get("predicate")
    need(isinstance(predicate, dict) and isinstance(predicate.get("kind"), str) and predicate["kind"] in PREDICATES, "UNKNOWN_KIND")
    need(CLAIMS(claims), "PROFILE")
    need(re.fullmatch(r'urn:writ:[A-Za-z0-9_-]{43}|https://[^\s"\\]{1,200}', claims["iss"]), "ISS")
    need(predicate["log"]["origin"] == claims["iss"], "ISS")
    need(claims["iat"] >= claims["toe"], "TIME")
    need(("_sd" in predicate) == ("_sd_alg" in claims), "PROFILE")
    need(len(set(predicate.get("_sd", []))) == len(predicate.get("_sd", [])), "PROFILE")
    if predicate["kind"] in ("decision", "approval", "outcome"):
        need("sub" in claims and "act" in claims and "txn" in claims, "PROFILE")
    if predicate["kind"] in ("decision", "approval"):
        need([subject["name"] for subject in claims["subject"]] == ["plan"], "PROFILE")
    if predicate["kind"] == "outcome":
        check_end(predicate, [subject["name"] for subject in claims["subject"]])
    if predicate["kind"] == "policy":
        own = {"generation": {"generation", "modules"}, "approvers": {"count"}, "token": set()}[predicate["what"]]
        need(set(predicate) & {"generation", "modules", "count"} == own, "PROFILE")
    need(predicate["kind"] != "genesis" or predicate["log"]["size"] == 0, "PROFILE")
    need(predicate["kind"] != "denials" or predicate["until"] >= predicate["from"], "TIME")


# --- one receipt -------------------------------------------------------------------------------------------------


class Receipt:
    def __init__(self, jws, trust):
        self.jws, self.digest = jws, digest_of(jws)
        kid, self.payload, signed, signature = parse_compact(jws, "writ-receipt+jwt")
        need(trust.any, "NO_TRUST")
        need(not trust.refused, "KEYS")
        need(kid in trust.keys, "UNKNOWN_KEY")
        self.key = trust.keys[kid]
        need(Key.of(self.key["x"]).verify(signed, signature), "SIG")
        self.claims = parse_object(self.payload)
        predicate = self.claims.get("predicate")
        kind = predicate.get("kind") if isinstance(predicate, dict) else None
        need(self.key["role"] == ("root" if kind == "genesis" else "receipt"), "KEY_ROLE")
        check_claims(self.claims)
        self.predicate, self.kind = predicate, kind
        iss = self.claims["iss"]
        need(not iss.startswith("urn:writ:") or trust.root is None or iss == "urn:writ:" + trust.root, "ISS")
        self.index = predicate["log"]["size"]
        need(self.key["from"] <= self.index and (self.key["until"] is None or self.index < self.key["until"]), "KEY_EPOCH")
        if kind == "genesis":
            need(predicate["log"]["root"] == base64.b64encode(sha256(b"")).decode() and predicate["root"] == kid, "HEAD")
        if kind == "key":
            self.change = self.read_change(trust)

    def read_change(self, trust):
        need(trust.root is not None, "KEY_CHAIN")
        try:
            _, entries = open_key_set(self.predicate["change"], trust.root)
        except Bad:
            raise Bad("KEY_CHAIN") from None
        outgoing, incoming = entries.get(self.predicate["outgoing"]), entries.get(self.predicate["incoming"])
        need(outgoing and incoming and outgoing["role"] == incoming["role"] == "receipt", "KEY_CHAIN")
        need(outgoing["until"] == self.index + 1 == incoming["from"] and outgoing["kid"] == self.key["kid"], "KEY_CHAIN")
        return [outgoing, incoming]

    @property
    def plan(self):
        return ",".join(subject["digest"]["sha256"] for subject in self.claims["subject"])


def same_caller(one, other):
    return one.claims["sub"] == other.claims["sub"] and one.claims["act"] == other.claims["act"]


def check_pair(outcome, decision):
    reference = outcome.predicate["decisionRef"]
    need(reference["index"] < outcome.index, "ORDER")
    need(reference == {"digest": decision.digest, "index": decision.index}, "PAIR")
    need(outcome.claims["iat"] >= decision.claims["iat"], "ORDER")
    need(outcome.claims["toe"] >= decision.claims["toe"] - 86400, "ORDER")
    need(outcome.predicate["invocationId"] == decision.predicate["invocationId"] and outcome.claims["txn"] == decision.claims["txn"], "PAIR")
    need(same_caller(outcome, decision), "PAIR")
    need(outcome.claims["subject"][0]["name"] != "plan" or outcome.plan == decision.plan, "PAIR")
    need(outcome.predicate["effect"] == "none" or decision.predicate["result"] == "allow", "ORDER")


def check_use(decision, approval):
    mine, given = decision.predicate, approval.predicate
    need(given["verdict"] == "approve" and approval.plan == decision.plan, "APPROVAL_BIND")
    need(given["invocationId"] == mine["invocationId"] and given["requirement"] == mine["requirement"], "APPROVAL_BIND")
    need(same_caller(approval, decision) and approval.claims["txn"] == decision.claims["txn"], "APPROVAL_BIND")
    need(approval.index < decision.index and approval.claims["iat"] <= decision.claims["iat"], "APPROVAL_BIND")


def check_statement(receipt, jws, approvers):
    need(digest_of(jws) == receipt.predicate["statement"], "APPROVAL_BIND")
    try:
        kid, payload, signed, signature = parse_compact(jws, "writ-approval+jwt")
        key = next((Key.of(x) for x in approvers if thumbprint(x) == kid), None)
        stranger = key is None and bool(approvers)
        need(key is None or key.verify(signed, signature), "SIG")
        statement = parse_object(payload)
        need(statement.get("typ") == "writ-approval/v1" and canonical(statement) == payload, "SIG")
    except Bad:
        raise Bad("APPROVAL_SIG") from None
    need(not stranger, "UNKNOWN_APPROVER")
    predicate, claims = receipt.predicate, receipt.claims
    bound = {
        "log_origin": claims["iss"],
        "execution_id": predicate["invocationId"],
        "plan": "sha256:" + claims["subject"][0]["digest"]["sha256"],
        "requirement": predicate["requirement"],
        "verdict": predicate["verdict"],
        "max_uses": 1,
    }
    if isinstance(predicate["stage"], str):
        bound["stage"] = predicate["stage"]
    else:
        need("sha256:" + sha256(canonical(statement.get("stage"))).hex() == predicate["stage"]["digest"], "APPROVAL_BIND")
    need(all(statement.get(name) == value for name, value in bound.items()), "APPROVAL_BIND")
    issued, expires = statement.get("issued_at"), statement.get("expires_at")
    need(type(issued) is int and type(expires) is int and issued <= expires and claims["toe"] <= expires, "APPROVAL_BIND")
    need(issued <= claims["toe"] + 120, "APPROVAL_BIND")


def check_disclosures(receipt, disclosures):
    withheld, names = set(receipt.predicate.get("_sd", [])), set()
    for disclosure in disclosures:
        digest = b64url(sha256(disclosure.encode()))
        need(digest in withheld, "DISCLOSURE")
        withheld.remove(digest)
        try:
            value = strict_json(unb64url(disclosure), fractions=True)
        except Bad:
            raise Bad("DISCLOSURE") from None
        need(isinstance(value, list) and len(value) == 3 and isinstance(value[0], str) and isinstance(value[1], str), "DISCLOSURE")
        need(value[1] not in receipt.predicate and value[1] not in names, "DISCLOSURE")
        names.add(value[1])


def check_twin(receipt, envelope):
    try:
        twin = parse_object(envelope.encode())
        payload = base64.b64decode(twin["payload"], validate=True)
        signatures = [base64.b64decode(s["sig"], validate=True) for s in twin["signatures"] if s["keyid"] == receipt.key["kid"]]
    except (Bad, ValueError, KeyError, TypeError):
        raise Bad("TWIN") from None
    kind = "application/vnd.in-toto+json"
    need(twin["payloadType"] == kind and payload == receipt.payload and len(signatures) == 1, "TWIN")
    encoded = ("DSSEv1 %d %s %d " % (len(kind), kind, len(payload))).encode() + payload
    need(Key.of(receipt.key["x"]).verify(encoded, signatures[0]), "TWIN")


def verify_receipt(presented, trust, evidence):
    jws, *appended = presented.split("~")
    need(not appended or appended.pop() == "", "FORM")
    receipt = Receipt(jws, trust)
    check_disclosures(receipt, appended + evidence.get("disclosures", []))
    if "twin" in evidence:
        check_twin(receipt, evidence["twin"])
    for other in [Receipt(related, trust) for related in evidence.get("related", [])]:
        if receipt.kind == "outcome" and other.kind == "decision":
            check_pair(receipt, other)
        if receipt.kind == "decision" and other.kind == "approval":
            used = receipt.predicate["approvals"]
            need(isinstance(used, dict) or {"digest": other.digest, "index": other.index} in used, "APPROVAL_BIND")
            check_use(receipt, other)
    if receipt.kind == "approval":
        for statement in evidence.get("statements", []):
            check_statement(receipt, statement, evidence.get("approvers", []))
    return "VALID:SIGNED"


# --- the whole log -----------------------------------------------------------------------------------------------


def tree_root(leaves):
    if not leaves:
        return sha256(b"")
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return sha256(b"\x01" + tree_root(leaves[:k]) + tree_root(leaves[k:]))


class Log:
    def __init__(self, trust, evidence):
        self.trust, self.evidence = trust, evidence
        self.leaves, self.receipts, self.ids = [], [], set()
        self.runs, self.ended, self.approvals, self.used, self.plans, self.generations = {}, set(), [], set(), set(), {}
        self.announced, self.seen = set(), set()
        self.statements = {digest_of(jws): jws for jws in evidence.get("statements", [])}

    def take(self, index, jws):
        need(index <= len(self.leaves), "GAP")
        receipt = Receipt(jws, self.trust)
        head = receipt.predicate["log"]
        need(index == len(self.leaves) == head["size"], "HEAD")
        need(head["root"] == base64.b64encode(tree_root(self.leaves)).decode(), "HEAD")
        need(index > 0 or receipt.kind == "genesis", "HEAD")
        need(not self.receipts or self.receipts[0].claims["iss"] == receipt.claims["iss"], "ISS")
        need(receipt.claims["jti"] not in self.ids, "REPLAY")
        self.ids.add(receipt.claims["jti"])
        need(not self.receipts or receipt.claims["iat"] >= self.receipts[-1].claims["iat"], "TIME")
        need(index == 0 or receipt.key["kid"] in self.announced, "KEY_CHAIN")
        if receipt.kind == "genesis":
            self.announced |= {key["kid"] for key in receipt.predicate["keys"]}
        if receipt.kind == "key":
            for entry in receipt.change:
                self.trust.keys[entry["kid"]] = entry
                self.announced.add(entry["kid"])
        else:
            need(not any(e["role"] == "receipt" and e["from"] == index + 1 for e in self.trust.keys.values()), "KEY_CHAIN")
        getattr(self, "take_" + receipt.kind, lambda _: None)(receipt)
        self.receipts.append(receipt)
        self.leaves.append(sha256(b"\x00" + jws.encode()))

    def take_policy(self, receipt):
        if "generation" in receipt.predicate:
            number, digest = receipt.predicate["generation"], "sha256:" + receipt.claims["subject"][0]["digest"]["sha256"]
            need(self.generations.setdefault(number, digest) == digest, "POLICY_EPOCH")

    def take_approval(self, receipt):
        need(receipt.predicate["statement"] not in self.seen, "APPROVAL_BIND")
        self.seen.add(receipt.predicate["statement"])
        self.approvals.append(receipt)
        if receipt.predicate["statement"] in self.statements:
            check_statement(receipt, self.statements[receipt.predicate["statement"]], self.evidence.get("approvers", []))

    def take_decision(self, decision):
        mine = decision.predicate
        run = mine["invocationId"]
        need(run not in self.ended, "ORDER")
        need(run not in self.runs or self.runs[run].plan == decision.plan, "PAIR")
        if mine["result"] in ("allow", "pending"):
            need(self.generations.get(mine["generation"]) == mine["policy"], "POLICY_EPOCH")
        used, requirement, allow = mine["approvals"], mine["requirement"], mine["result"] == "allow"
        if isinstance(used, dict):
            given = [a for a in self.approvals if a.predicate["invocationId"] == run and a.predicate["verdict"] == "approve"]
            used = [{"digest": a.digest, "index": a.index} for a in given if a.predicate["requirement"] == requirement][-mine["approvals"]["count"] :]
            need("sha256:" + sha256(canonical(used)).hex() == mine["approvals"]["digest"], "APPROVAL_BIND")
        need(not used if requirement is None else used or not allow, "APPROVAL_BIND")
        need(len({reference["digest"] for reference in used}) == len(used), "APPROVAL_BIND")
        for reference in used:
            approval = next((a for a in self.approvals if a.digest == reference["digest"] and a.index == reference["index"]), None)
            need(approval is not None, "APPROVAL_BIND")
            check_use(decision, approval)
            need(approval.digest not in self.used, "APPROVAL_BIND")
        if allow:
            self.used |= {reference["digest"] for reference in used}
        self.runs[run] = decision

    def take_outcome(self, outcome):
        run = outcome.predicate["invocationId"]
        need(run not in self.ended, "PAIR")
        need(run in self.runs, "ORDER")
        decision = self.runs.pop(run)
        check_pair(outcome, decision)
        if outcome.predicate["effect"] != "none":
            need(decision.plan not in self.plans, "PAIR")
            self.plans.add(decision.plan)
        self.ended.add(run)

    def end(self):
        need(self.receipts, "GAP")
        for jws in self.evidence.get("held", []):
            receipt = Receipt(jws, self.trust)
            need(receipt.index < len(self.receipts), "STALE")
            need(self.receipts[receipt.index].digest == receipt.digest, "FORK")
        open_runs = self.evidence.get("open", [])
        need(all(d.predicate["result"] != "allow" or run in open_runs for run, d in self.runs.items()), "DANGLING")
        return "VALID:LOGGED"


def verify_log(entries, trust, evidence):
    log = Log(trust, evidence)
    for index, jws in entries:
        log.take(index, jws)
    return log.end()


def answer(case, entries, usual):
    trust, evidence = Trust(case.get("trust", usual)), case.get("evidence", {})
    try:
        if "log" in case:
            verdict = verify_log([(index, entries[at]) for index, at in case["log"]], trust, evidence)
        else:
            verdict = verify_receipt(case["receipt"], trust, evidence)
        return {"verdict": verdict, "code": None}
    except Bad as bad:
        verdict = next((name for name, codes in CLASSES.items() if bad.code in codes), "INVALID")
        return {"verdict": verdict, "code": bad.code}


def main(folder):
    def read(name):
        with open(folder + "/" + name, encoding="utf-8") as file:
            return json.load(file)

    entries, usual = read("entries.json"), read("trust.json")
    print(json.dumps({case["title"]: answer(case, entries, usual) for case in read("cases.json")}))


if __name__ == "__main__":
    main(sys.argv[1])
