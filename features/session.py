"""The signals of the session that is going on, as a contract: what anything outside the request path may ask for.

The request path calls `foretaste.signals.signals` itself; tests hold the two equal to the byte. Feast rebuilds the
function from its source, so it imports what it needs in its body, and takes everything in one versioned blob.
"""

from feast import FeatureService, Field, RequestSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Bytes, Float32, Int64

from foretaste.signals.declared import SESSION_SIGNALS, SIGNALS_VERSION

TYPES = {"int64": Int64, "float32": Float32}

session_request = RequestSource(
    name="session_request",
    schema=[Field(name="session_blob", dtype=Bytes)],
    description="foretaste.signals.blob: visible events, instant, catalogue, session rule",
)


@on_demand_feature_view(  # type: ignore[untyped-decorator]
    name="session_signals",
    sources=[session_request],
    schema=[
        Field(name=one.name, dtype=TYPES[one.dtype] if one.width == 1 else Array(TYPES[one.dtype]))
        for one in SESSION_SIGNALS
    ],
    mode="python",
    description="What the open session and those before it say, at the instant of a request",
    tags={"signals_version": SIGNALS_VERSION},
)
def session_signals(inputs: dict[str, list[bytes]]) -> dict[str, list[object]]:
    from foretaste.signals.blob import columns

    return columns(inputs["session_blob"])


session = FeatureService(
    name="session",
    description="The signals of a request",
    features=[session_signals],
)
