"""`foretaste train`: train the models on Ray Train and file them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from foretaste.jobs.cluster import cluster
from foretaste.jobs.features import feature_store
from foretaste.jobs.releases import release_trained
from foretaste.jobs.session_knn import file_session_knn
from foretaste.jobs.settings import Settings
from foretaste.jobs.workspace import needed
from foretaste.ops.job_metrics import TrainingMetrics
from foretaste.ops.telemetry import say
from foretaste.training.intent import TrainResult, train_intent
from foretaste.training.loop import Epoch
from foretaste.training.ranker import train_ranker


def train(
    settings: Settings,
    *,
    model: Literal["all", "intent", "ranker", "session_knn"] = "all",
    split: Literal["time", "last"] = "time",
    release: bool = True,
) -> dict[str, Any]:
    """Train the intent model, then the ranker on what the intent model has not seen; returns their figures.

    Under leave-one-out no window of time is left for the ranker: only the intent model is trained. The nearest
    sessions, which answer while no model does, are indexed last. What belongs together is released, and answers;
    without `release` it is not.
    """
    tables = settings.tables
    prepared = needed(tables.prepared, made_by="prepare")
    done: dict[str, Any] = {}
    with cluster(settings.cluster):
        if model in ("all", "intent"):
            intent = train_intent(
                prepared,
                tables.registry,
                model=settings.intent,
                training=settings.training.model_copy(update={"split": split}),
                storage=tables.runs,
                runs=settings.runs_url,
                tracking=settings.tracking,
                now=datetime.now(UTC),
                on_progress=_progress("intent", tables.metrics),
                labels=settings.labels,
            )
            done["intent"] = _figures("intent", intent)
        if model == "ranker" or (model == "all" and split == "time"):
            ranker = train_ranker(
                prepared,
                needed(tables.registry, made_by="train intent"),
                feature_store(settings),
                model=settings.ranker,
                training=settings.ranker_training,
                storage=tables.runs,
                runs=settings.runs_url,
                tracking=settings.tracking,
                now=datetime.now(UTC),
                on_progress=_progress("ranker", tables.metrics),
                read_events=settings.serving.session_log.read_events,
            )
            done["ranker"] = _figures("ranker", ranker)
    if model in ("all", "session_knn"):
        done["session_knn"] = file_session_knn(settings, now=datetime.now(UTC))
    if not release:
        return done | {"release": None}
    return done | {"release": release_trained(settings, done.keys(), now=datetime.now(UTC))}


def _progress(name: str, folder: Path) -> Any:
    told = TrainingMetrics(folder, name)

    def on_progress(epoch: Epoch) -> None:
        told.epoch(epoch.number, of=epoch.of, loss=epoch.loss, rate=epoch.rate, metrics=epoch.metrics)
        values = "  ".join(f"{key} {value:.4f}" for key, value in epoch.metrics.items() if key != "loss")
        bar = "#" * round(20 * epoch.number / epoch.of)
        say(
            f"train {name:<7}[{bar:<20}] epoch {epoch.number}/{epoch.of}  loss {epoch.loss:.4f}  {values}  "
            f"{epoch.rate:,.0f} predictions/s" + ("  best" if epoch.best else "")
        )

    return on_progress


def _figures(name: str, result: TrainResult) -> dict[str, Any]:
    about = f"best epoch {result.best_epoch}, {result.seconds:.1f} s of training"
    say(f"train {name}: filed {result.bundle.version}, {about}")
    return {
        "version": result.bundle.version,
        "best_epoch": result.best_epoch,
        "metrics": result.metrics,
        "seconds": round(result.seconds, 1),
    }
