"""Writers for services that follow runs: Weights & Biases, MLflow. Which service, and who one is
there, their own environment variables say. A resumed run goes on as the same run there."""

from __future__ import annotations

import json
import math
import os
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from eyeline.files import write_whole

TRACKED = "tracking.json"  # what the services call the run
PATIENCE = 30.0  # seconds at the end of a run for what a service has not got yet
Say = Callable[[str], None]


class WandB:
    """A run of Weights & Biases, named like its folder. Where the service cannot be reached the
    run is written down in the folder, for `wandb sync`. Under an agent of W&B's sweeps it is the
    agent's run.

    Numbers are drawn over "step", the optimizer's: a resumed run goes back to its last state,
    which W&B's own count of calls cannot.

    Args:
        project: "PROJECT" or "ENTITY/PROJECT".
    """

    def __init__(self, project: str, folder: Path, say: Say) -> None:
        import wandb

        entity, _, name = project.rpartition("/")
        # The id is made here, or by an agent, and kept before the service knows of it.
        given = os.environ.get("WANDB_RUN_ID") or uuid.uuid4().hex[:12]
        known = _tracked(folder).get("wandb", {}).get("id") or given
        _track(folder, "wandb", {"id": known, "project": project})
        start = partial(
            wandb.init, project=name, entity=entity or None, id=known, resume="allow",
            name=folder.resolve().name, dir=str(folder),
        )  # fmt: skip
        quiet = partial(wandb.Settings, silent=True, console="off", init_timeout=PATIENCE)
        mode: Any = os.environ.get("WANDB_MODE", "online")
        try:
            if mode == "online" and not wandb.login(prompt=False, verify=False):
                raise wandb.errors.UsageError("there is no API key; run: wandb login")
            self.run = start(settings=quiet(mode=mode))
        except wandb.errors.Error as error:
            self.run = start(settings=quiet(mode="offline"))
            why, where = _line(error), Path(self.run.dir).parent
            say(f"W&B cannot be reached ({why}); to send the run later: wandb sync {where}")
        self.run.define_metric("*", step_metric="step")

    def config(self, values: Mapping[str, Any]) -> None:
        by_agent = "WANDB_SWEEP_ID" in os.environ  # what it has chosen is there, and locked
        own = {k: v for k, v in values.items() if not (by_agent and k in self.run.config)}
        self.run.config.update(own, allow_val_change=True)  # type: ignore[no-untyped-call]

    def scalars(self, step: int, numbers: Mapping[str, float]) -> None:
        self.run.log({"step": step, **numbers})

    def close(self, state: str) -> None:
        ended = {"finished": 0, "interrupted": 255}  # as W&B has it for Ctrl-C
        self.run.finish(exit_code=ended.get(state, 1))


class MLflow:
    """A run of MLflow, named like its folder. A thread of its own sends what there is; what the
    service does not take waits for the next time.

    Args:
        experiment: its name; it is made where it is missing.
    """

    def __init__(self, experiment: str, folder: Path, say: Say) -> None:
        from mlflow import MlflowClient

        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # not minutes: see above
        self.client_of = MlflowClient
        self.experiment, self.folder, self.say = experiment, folder, say
        self.told = False
        self.queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self.waiting: deque[Callable[[], None]] = deque([self._begin])
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def config(self, values: Mapping[str, Any]) -> None:
        self.queue.put(partial(self._config, {key: str(v)[:500] for key, v in values.items()}))

    def scalars(self, step: int, numbers: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [
            Metric(name, value, now, step)
            for name, value in numbers.items()
            if math.isfinite(value)
        ]
        self.queue.put(partial(self._log, metrics=metrics))

    def close(self, state: str) -> None:
        ended = {"finished": "FINISHED", "interrupted": "KILLED"}.get(state, "FAILED")
        self.queue.put(lambda: self.client.set_terminated(self.id, ended))
        self.queue.put(None)
        self.thread.join(PATIENCE)
        if self.waiting:
            self.say(f"{len(self.waiting)} records did not reach MLflow; metrics.jsonl has them")

    def _work(self) -> None:
        while True:
            try:
                while self.waiting:
                    self.waiting[0]()
                    self.waiting.popleft()
            except Exception as error:  # whatever goes wrong between here and the service
                if not self.told:
                    self.say(f"MLflow does not take the run's numbers ({_line(error)}); they wait")
                self.told = True
            act = self.queue.get()
            if act is None:
                return
            self.waiting.append(act)

    def _begin(self) -> None:
        """Go on with the run that the folder is known as there, or begin one."""
        self.client = self.client_of()
        uri = self.client.tracking_uri
        known = _tracked(self.folder).get("mlflow", {})
        if known.get("uri") == uri and self._goes_on(known["id"]):
            self.id = known["id"]
            return
        found = self.client.get_experiment_by_name(self.experiment)
        where = found.experiment_id if found else self.client.create_experiment(self.experiment)
        run = self.client.create_run(where, run_name=self.folder.resolve().name)
        self.id = run.info.run_id
        _track(self.folder, "mlflow", {"id": self.id, "uri": uri, "experiment": self.experiment})

    def _goes_on(self, known: str) -> bool:
        """Is the run still there? Then it is running again."""
        from mlflow.exceptions import MlflowException

        try:
            self.client.update_run(known, status="RUNNING")
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise
        return True

    def _config(self, values: dict[str, str]) -> None:
        """As parameters, which may never change; what is another since, as tags."""
        from mlflow.entities import Param, RunTag

        known = self.client.get_run(self.id).data.params
        new = [Param(key, value) for key, value in values.items() if key not in known]
        for i in range(0, len(new), 100):  # as many as the service takes at once
            self._log(params=new[i : i + 100])
        changed = {k: v for k, v in values.items() if known.get(k, v) != v}
        self._log(tags=[RunTag(f"changed.{key}", value) for key, value in changed.items()])

    def _log(self, **what: Any) -> None:
        self.client.log_batch(self.id, **what)


def _tracked(folder: Path) -> dict[str, Any]:
    """The services that know the run, and what they call it."""
    try:
        return dict(json.loads((folder / TRACKED).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _track(folder: Path, service: str, values: Mapping[str, Any]) -> None:
    text = json.dumps(_tracked(folder) | {service: values}, indent=1) + "\n"
    write_whole(folder / TRACKED, partial(Path.write_text, data=text, encoding="utf-8"))


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
