"""The middleware in front of all routes, Gradio's included."""

from collections.abc import Callable

from starlette.middleware import Middleware
from starlette.requests import HTTPConnection

from hosting.compression import CompressionMiddleware
from hosting.error_responses import LoggedCORSMiddleware, RefusalLog
from hosting.forwarded_headers import ForwardedMiddleware
from hosting.guard import GuardConfig, GuardMiddleware, LoginQuota
from hosting.hosts import Hosts
from hosting.identity import Identity, VisitorMiddleware
from hosting.security_headers import PageRewriter, SecurityHeadersMiddleware
from hosting.sessions import Sessions
from settings import Settings

_EXPOSED_HEADERS = ["X-Run-Id", "X-Conversation-Id", "Retry-After"]


def build_middleware(
    settings: Settings,
    identity: Identity,
    quota: LoginQuota,
    own_paths: frozenset[str],
    *,
    sessions: Sessions | None = None,
    link: Callable[[], str] = lambda: "",
    logged_in: Callable[[HTTPConnection], bool] = lambda _: False,
    rewrite: PageRewriter = lambda page: page,
) -> list[Middleware]:
    """Returns the middleware, the outermost first.

    `own_paths` are the first path segments of the routes that are not Gradio's; `link` returns the address of the
    public link, or ""; `logged_in` says whether a connection has the cookie of Gradio's login; `rewrite` changes the
    HTML of pages.
    """
    refusals = RefusalLog()
    limits, origins, page = settings.limits, settings.allowed_origins, settings.page
    hosts = Hosts(settings.allowed_hosts, [settings.host, settings.space_host], link, on_space=settings.on_space)
    guard = GuardConfig(
        own_paths=own_paths,
        body_bytes=limits.body_bytes,
        identify=identity.requester,
        quota=quota,
        auth=settings.auth,
        logged_in=logged_in,
        public_paths=frozenset({"/metrics"} if settings.metrics_token else ()),
        upload_bytes={
            "/documents": limits.document_bytes,
            "/images": limits.image_bytes,
            "/conversations": limits.import_bytes,
        },
        allowed_origins=origins,
        connections_per_address=limits.connections_per_address or 0,
        sessions=sessions or Sessions(),
        hosts=hosts,
        refusals=refusals,
        title=page.title,
        embeds=bool(page.embed_origins),
    )
    return [
        Middleware(CompressionMiddleware),
        Middleware(
            ForwardedMiddleware,
            trusted=settings.proxies,
            root_path=settings.root_path,
            tunnel=link,
            log=refusals,
            knows=hosts.knows,
        ),
        Middleware(
            SecurityHeadersMiddleware,
            on_space=settings.on_space,
            origins=origins,
            rewrite=rewrite,
            embed_origins=page.embed_origins,
        ),
        Middleware(
            LoggedCORSMiddleware,
            log=refusals,
            allow_origins=origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=_EXPOSED_HEADERS,
        ),
        Middleware(GuardMiddleware, config=guard),
        Middleware(VisitorMiddleware, identity=identity, embeds=bool(page.embed_origins)),
    ]
