"""Client settings from a properties file: Kafka's own names, as far as librdkafka has them.

The file is the `client.properties` that Kafka's Java tools read. Names that differ are
translated, what only Java knows is left out, and Java key stores are refused with the fix.
"""

from __future__ import annotations

import re

from transforms.addresses import BadAddress

_ESCAPE = re.compile(r"\\(u[0-9A-Fa-f]{4}|.)", re.DOTALL)
_NAMED = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}
_LINE = re.compile(r"((?:\\.|[^\\:=\s])*)[ \t\f]*(?:[:=][ \t\f]*)?(.*)", re.DOTALL)
_JAAS = re.compile(r"""(\w+)\s*=\s*("((?:\\.|[^"\\])*)"|'([^']*)'|[^\s;]+)""")

_IGNORED = re.compile(
    r"(key|value)\.(de)?serializer|interceptor\.classes|metric.*|default\.api\.timeout\.ms"
    r"|bootstrap\.servers|group\.id|auto\.offset\.reset|enable\.auto\.commit|max\.poll\.records"
    r"|partition\.assignment\.strategy|sasl\..*callback\.handler\.class|ssl\.provider"
    r"|ssl\.protocol|ssl\.enabled\.protocols|ssl\.truststore\.password|ssl\.truststore\.type"
    r"|ssl\.keystore\.type|ssl\.(key|trust)manager\.algorithm|client\.dns\.lookup\.java"
)
_SAME_BUT_NAME = {
    "ssl.truststore.certificates": "ssl.ca.pem",
    "ssl.keystore.key": "ssl.key.pem",
    "ssl.keystore.certificate.chain": "ssl.certificate.pem",
}
_STORES = {".jks", ".keystore", ".truststore"}


def read_properties(text: str) -> dict[str, str]:
    """Read Java properties: comments, `=`, `:` or a space, continued lines, escapes."""
    found: dict[str, str] = {}
    pending = ""
    for raw in text.splitlines():
        line = pending + raw.lstrip(" \t\f")
        if not pending and line[:1] in {"", "#", "!"}:
            continue
        # An odd number of backslashes at the end continues the line.
        if (len(line) - len(line.rstrip("\\"))) % 2:
            pending = line[:-1]
            continue
        pending = ""
        _add(found, line)
    if pending:
        _add(found, pending)
    return found


def _add(found: dict[str, str], line: str) -> None:
    parts = _LINE.fullmatch(line)
    if parts:
        found[_unescape(parts[1])] = _unescape(parts[2])


def _unescape(text: str) -> str:
    def replace(match: re.Match[str]) -> str:
        code = match[1]
        return chr(int(code[1:], 16)) if len(code) == 5 else _NAMED.get(code, code)

    return _ESCAPE.sub(replace, text)


def client_settings(path: str) -> dict[str, str]:
    """Read a properties file as settings of librdkafka; no path, no settings.

    Raises:
        BadAddress: it cannot be read, or says what librdkafka cannot do.
    """
    if not path:
        return {}
    try:
        with open(path, encoding="utf-8") as source:
            properties = read_properties(source.read())
    except OSError as e:
        reason = f"config={path}: {e.strerror}"
        raise BadAddress(reason) from None
    except UnicodeDecodeError:
        reason = f"config={path}: it is not UTF-8 text"
        raise BadAddress(reason) from None
    return translate(properties, path)


def translate(properties: dict[str, str], path: str) -> dict[str, str]:
    """Turn Kafka's names into those of librdkafka.

    Raises:
        BadAddress: librdkafka cannot do what is asked.
    """
    settings: dict[str, str] = {}
    for name, padded in properties.items():
        value = padded.strip()
        if name == "sasl.jaas.config":
            settings.update(_jaas(value, path))
        elif name == "ssl.truststore.location":
            kind = properties.get("ssl.truststore.type", "").upper()
            _no_key_store(path, name, value, kind, also="")
            settings["ssl.ca.location"] = value
        elif name == "ssl.keystore.location":
            kind = properties.get("ssl.keystore.type", "").upper()
            _no_key_store(path, name, value, kind, also="PKCS12")
            if kind == "PEM" or value.endswith((".pem", ".crt")):
                settings["ssl.certificate.location"] = settings["ssl.key.location"] = value
            else:
                settings[name] = value
        elif name == "ssl.endpoint.identification.algorithm":
            settings[name] = value or "none"
        elif name in _SAME_BUT_NAME:
            settings[_SAME_BUT_NAME[name]] = value
        elif not _IGNORED.fullmatch(name):
            settings[name] = value
    return settings


def _no_key_store(path: str, name: str, value: str, kind: str, also: str) -> None:
    suffix = value[value.rfind(".") :].lower() if "." in value else ""
    if kind in {"PEM", also} - {""}:
        return
    if kind or suffix in _STORES or (not also and suffix in {".p12", ".pfx"}):
        what = f"a key store of type {kind}" if kind else "a Java key store"
        fix = (
            "keytool -importkeystore -deststoretype PKCS12"
            if also
            else "keytool -exportcert -rfc, and name that file in ssl.ca.location"
        )
        reason = (
            f"config={path}: {name}={value} is {what}, which is not read here; export it: {fix}"
        )
        raise BadAddress(reason)


def _jaas(value: str, path: str) -> dict[str, str]:
    """Read the login module's line: user and password, or an OAuth client."""
    options = {
        found[1]: found[2]
        if found[3] is found[4] is None
        else re.sub(r"\\(.)", r"\1", found[3])
        if found[3] is not None
        else found[4]
        for found in _JAAS.finditer(value)
    }
    if "username" in options and "password" in options:
        return {"sasl.username": options["username"], "sasl.password": options["password"]}
    if "clientId" in options and "clientSecret" in options:
        return {
            "sasl.oauthbearer.method": "oidc",
            "sasl.oauthbearer.client.id": options["clientId"],
            "sasl.oauthbearer.client.secret": options["clientSecret"],
            **({"sasl.oauthbearer.scope": options["scope"]} if "scope" in options else {}),
        }
    module = value.split(maxsplit=1)[0] if value else "nothing"
    reason = (
        f"config={path}: sasl.jaas.config has no username and password ({module}); "
        "set sasl.username and sasl.password"
    )
    raise BadAddress(reason)
