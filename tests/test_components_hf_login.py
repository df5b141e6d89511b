"""Sign-in with Hugging Face as on a Space, with an OpenID provider and an Inference Provider on 127.0.0.1."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
from joserfc import jwt
from joserfc.jwk import RSAKey

from tests.app_process import RunningApp
from tests.providers import OpenAIServer
from tests.server import Request, Server, Wire

TOKEN = "hf_oauth_of_zoe_1234567890"
CLIENT, HOST = "of-the-space", "someone-glassbox.hf.space"
CONFIG = """
[[backends]]
name = "Script"
kind = "scripted"
[[backends]]
name = "On the Hub"
kind = "openai"
base_url = "{url}"
model = "test-model"
key = "HF_TOKEN"
"""


class Provider(Server):
    """A fake of Hugging Face's OpenID provider. Sources: OpenID Connect Core 1.0; the Hub's "Sign-In with HF"."""

    def __init__(self) -> None:
        super().__init__()
        self.key = RSAKey.generate_key(2048, {"kid": "one"})
        self.nonce = ""

    async def respond(self, request: Request, wire: Wire) -> None:
        path = request.path.partition("?")[0]
        if path == "/.well-known/openid-configuration":
            ways = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "jwks"}
            known = {name: f"{self.url}/{way}" for name, way in ways.items()}
            await wire.json({"issuer": self.url, **known, "id_token_signing_alg_values_supported": ["RS256"]})
        elif path == "/jwks":
            await wire.json({"keys": [self.key.as_dict(private=False)]})
        elif path == "/token":
            now = int(time.time())
            claims: dict[str, Any] = {"iss": self.url, "aud": CLIENT, "sub": "1", "iat": now, "exp": now + 600}
            person = {"name": "Zoe", "preferred_username": "zoe", "profile": "", "picture": "", "nonce": self.nonce}
            signed = jwt.encode({"alg": "RS256", "kid": "one"}, claims | person, self.key)
            await wire.json({"access_token": TOKEN, "token_type": "bearer", "expires_in": 600, "id_token": signed})
        else:
            await wire.json({"error": path}, 404)


class Visitor:
    """A client that keeps cookies like a browser on https, which the Space's proxy serves."""

    def __init__(self, url: str) -> None:
        self.cookies: dict[str, str] = {}
        self._client = httpx.AsyncClient(base_url=url, timeout=30, headers={"X-Forwarded-Proto": "https"})

    async def ask(self, method: str, path: str, **sent: Any) -> httpx.Response:
        received = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}
        answer = await self._client.request(method, path, headers=received, **sent)
        for line in answer.headers.get_list("set-cookie"):
            name, _, value = line.partition(";")[0].partition("=")
            assert "secure" in line.lower() and "httponly" in line.lower(), line
            self.cookies[name] = value
        self._client.cookies.clear()
        return answer

    async def open(self) -> str:
        """Opens the page with its load events, and returns their responses."""
        await self.ask("GET", "/")
        config = (await self.ask("GET", "/config")).json()
        loads = [one["id"] for one in config["dependencies"] if "load" in str(one["targets"]) and one["backend_fn"]]
        session, said = f"s{time.monotonic_ns()}", ""
        for load in loads:
            body = {"data": [], "fn_index": load, "session_hash": session, "trigger_id": None, "event_data": None}
            assert (await self.ask("POST", "/gradio_api/queue/join", json=body)).status_code == 200
        heard = await self.ask("GET", f"/gradio_api/queue/data?session_hash={session}")
        said += heard.text
        assert said.count('"msg":"process_completed"') == len(loads)
        return said

    async def send_hello(self) -> httpx.Response:
        return await self.ask("POST", "/stream", json={"message": "hello", "backend": "On the Hub"})


async def signed_in(visitor: Visitor, provider: Provider) -> None:
    begun = await visitor.ask("GET", "/login/huggingface?_target_url=/")
    assert begun.status_code in (302, 307)
    asked = {name: values[0] for name, values in parse_qs(urlsplit(begun.headers["location"]).query).items()}
    assert begun.headers["location"].startswith(f"{provider.url}/authorize?") and asked["client_id"] == CLIENT
    assert asked["redirect_uri"].startswith(f"https://{HOST}/login/callback")
    provider.nonce = asked["nonce"]
    back = await visitor.ask("GET", f"/login/callback?_target_url=/&code=any&state={asked['state']}")
    assert (back.status_code, back.headers["location"]) == (307, "/")


async def used(url: str, provider: Provider, openai: OpenAIServer) -> None:
    zoe, tom = Visitor(url), Visitor(url)
    await tom.open()
    assert "Sign in" in await zoe.open() and (await zoe.send_hello()).json()["code"] == "missing_key"
    await signed_in(zoe, provider)
    said = await zoe.open()
    assert "Sign out (zoe)" in said and TOKEN not in said
    reply = await zoe.send_hello()
    assert '"type":"complete"' in reply.text.replace(" ", "") and TOKEN not in reply.text
    assert openai.requests[-1].headers["authorization"] == f"Bearer {TOKEN}"
    assert (await tom.send_hello()).json()["code"] == "missing_key", "only Zoe has her key"
    assert TOKEN not in json.dumps((await zoe.ask("GET", "/backends")).json())
    assert (await zoe.ask("GET", "/logout?_target_url=/")).status_code == 307
    await zoe.open()
    assert (await zoe.send_hello()).json()["code"] == "missing_key"


def test_signed_in_visitor_uses_their_own_token_until_sign_out(tmp_path: Path) -> None:
    with Provider() as provider, OpenAIServer() as openai:
        config = CONFIG.format(url=openai.base_url)
        space = {"SPACE_ID": "someone/glassbox", "SYSTEM": "spaces", "SPACE_HOST": HOST, "HOME": str(tmp_path)}
        oauth = {"OAUTH_CLIENT_ID": CLIENT, "OAUTH_CLIENT_SECRET": "s", "OAUTH_SCOPES": "openid profile inference-api"}
        environment = {**space, **oauth, "OPENID_PROVIDER_URL": provider.url}
        with RunningApp(tmp_path, config, fresh=True, **environment) as app:
            asyncio.run(used(app.url.rstrip("/"), provider, openai))
        received = app.output()
        assert TOKEN not in received, "the log has a token"
        assert app.process.returncode == 0
        assert received.count("Traceback") <= received.count("`spaces` package is required"), "only the Hub installs it"
