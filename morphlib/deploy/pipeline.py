"""One deployment from its checks to its target: what a worker process does."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from morphlib import events
from morphlib.build.removal import remove_tree
from morphlib.deploy.extensions import CONFIGURATION_CHECK, Extension
from morphlib.deploy.metadata import deployment_metadata, write_metadata
from morphlib.deploy.model import DeployContext, Prepared
from morphlib.deploy.parameters import with_python_path
from morphlib.deploy.runner import Stream, Surroundings, run_extension
from morphlib.deploy.strata import layers_table, stratum_layers
from morphlib.deploy.times import VARIABLE, newest_time, settle_times
from morphlib.deploy.tree import SystemTree, device_table, system_tree
from morphlib.errors import MorphError, Reason
from morphlib.rooted import resolve_in

Step = Literal["check", "unpack", "unpacked", "metadata", "configure", "write"]


@dataclass(slots=True)
class Pipeline:
    """Carries deployments out, one after the other. `tell` reaches whoever shows them."""

    context: DeployContext
    tell: Callable[[events.AnyEvent], None]

    def check(self, prepared: Prepared) -> list[MorphError]:
        """Run all checks of a deployment and its subsystems. Returns what they refuse."""
        errors = []
        for each, location in self._locations(prepared, prepared.deployment.location):
            if each.check is not None:
                self._step(each, "check")
            for extension, arguments in _checks(each, location):
                try:
                    run_extension(self._around(each), extension, arguments, self._environment(each))
                except MorphError as error:
                    errors.append(error if each is prepared else _of_subsystem(each, error))
        return errors

    def _locations(self, prepared: Prepared, location: str) -> Iterator[tuple[Prepared, str]]:
        """Each deployment with where its system will be: a subsystem in the tree around it, which
        is not there yet."""
        yield prepared, location
        tree = self.context.work(prepared) / "root"
        for subsystem in prepared.subsystems:
            inside = subsystem.deployment.location.lstrip("/")
            yield from self._locations(subsystem, str(tree / inside))

    def deploy(self, prepared: Prepared, around: Path | None = None) -> None:
        """Carry out a deployment; `around` is the tree that a subsystem goes into.

        Raises MorphError. Nothing of it is left then but what extensions left elsewhere.
        """
        deployment = prepared.deployment
        started = time.monotonic()
        self.tell(
            events.DeploymentStarted(
                name=deployment.name,
                system=deployment.system,
                prefix=deployment.prefix,
                type=deployment.type,
                location=deployment.location,
                upgrade=deployment.upgrade,
            )
        )
        succeeded = False
        try:
            self._run(prepared, around)
            succeeded = True
        finally:
            self.tell(
                events.DeploymentFinished(
                    name=deployment.name,
                    system=deployment.system,
                    prefix=deployment.prefix,
                    succeeded=succeeded,
                    duration=time.monotonic() - started,
                )
            )

    def _run(self, prepared: Prepared, around: Path | None) -> None:
        work = self.context.work(prepared)
        self._step(prepared, "unpack")
        with system_tree(prepared, work, self.tell) as tree, self._private(prepared) as private:
            self._step(prepared, "unpacked", str(tree.root))
            if tree.fallback is not None:
                self._warn(f"{tree.fallback}: systems are copied to be deployed")
            self._step(prepared, "metadata")
            meta = deployment_metadata(
                prepared.deployment, prepared.artifact, self.context.versions, prepared.secret
            )
            write_metadata(tree.root, meta)
            for subsystem in prepared.subsystems:
                try:
                    _check_place(subsystem, tree)
                    self.deploy(subsystem, tree.root)
                except MorphError as error:
                    raise _of_subsystem(subsystem, error) from error
            environment = self._environment(prepared) | self._hints(prepared, tree)
            environment["TMPDIR"] = str(private)
            self._configure(prepared, tree, environment)
            settle_times(tree.root, tree.changed, newest_time(environment))
            self._write(prepared, tree, environment, around)

    def _configure(
        self, prepared: Prepared, tree: SystemTree, environment: Mapping[str, str]
    ) -> None:
        if prepared.deployment.partial:
            self._warn("Not running configuration extensions as --partial is set!")
            return
        self._step(prepared, "configure")
        for extension in prepared.configure:
            run_extension(self._around(prepared), extension, [str(tree.root)], environment)

    def _write(
        self,
        prepared: Prepared,
        tree: SystemTree,
        environment: Mapping[str, str],
        around: Path | None,
    ) -> None:
        location = prepared.deployment.location
        if around is not None:
            location = str(resolve_in(around, location))
        self._warn_of_stand_ins(prepared.write, tree)
        self._step(prepared, "write")
        if tree.base is not None and prepared.write.built_in:
            table = self.context.run / f"{prepared.number}.base"
            table.write_text(json.dumps(tree.base))
            environment = {**environment, "MORPH_BASE": str(table)}
        arguments = [str(tree.root), location]
        run_extension(self._around(prepared), prepared.write, arguments, environment)

    def _warn_of_stand_ins(self, extension: Extension, tree: SystemTree) -> None:
        if tree.devices and not extension.built_in:
            self._warn(
                f"The system has device nodes, for which {extension.full_name} finds empty files: "
                "what they stand for is in the file that MORPH_DEVICE_TABLE names. Root has nodes."
            )

    def _environment(self, prepared: Prepared) -> dict[str, str]:
        environment = with_python_path(prepared.deployment.environment, str(self.context.python))
        environment[VARIABLE] = str(newest_time(environment))
        environment["MORPH_SYSTEM_KEY"] = prepared.build.graph.system.key
        environment["MORPH_ARCH"] = prepared.build.graph.arch
        own = sorted(prepared.deployment.configuration)
        environment["MORPH_PARAMETERS"] = json.dumps(own)
        return environment

    def _hints(self, prepared: Prepared, tree: SystemTree) -> dict[str, str]:
        """What lets extensions do better than they could with the tree alone."""
        hints: dict[str, str] = {}
        if tree.devices:
            table = self.context.run / f"{prepared.number}.devices"
            table.write_bytes(device_table(tree.devices))
            hints["MORPH_DEVICE_TABLE"] = str(table)
        if prepared.wants_layers and prepared.content is None:
            strata = stratum_layers(prepared, self.tell)
            if strata is not None:
                table = self.context.run / f"{prepared.number}.layers"
                table.write_bytes(layers_table(strata))
                hints["MORPH_LAYERS"] = str(table)
        return hints

    def _around(self, prepared: Prepared) -> Surroundings:
        deployment = prepared.deployment

        def tell(extension: str, stream: Stream, line: str) -> None:
            self.tell(
                events.DeploymentOutput(
                    name=deployment.name,
                    prefix=deployment.prefix,
                    extension=extension,
                    stream=stream,
                    text=line,
                )
            )

        turn = self.context.run / "stdin" if self.context.slots > 1 else None
        return Surroundings(
            self.context.root, self.context.run, self.context.log, tell, self._warn, turn
        )

    @contextlib.contextmanager
    def _private(self, prepared: Prepared) -> Iterator[Path]:
        """$TMPDIR of a deployment's extensions."""
        directory = self.context.run / f"{prepared.number}.tmp"
        try:
            directory.mkdir(mode=0o700)
        except OSError as error:
            raise MorphError(
                f"can't make {directory}: {error.strerror}", reason=Reason.DEPLOY
            ) from error
        try:
            yield directory
        finally:
            remove_tree(directory)

    def _step(self, prepared: Prepared, step: Step, detail: str = "") -> None:
        deployment = prepared.deployment
        self.tell(
            events.DeploymentStep(
                name=deployment.name, prefix=deployment.prefix, step=step, detail=detail
            )
        )

    def _warn(self, text: str) -> None:
        """Tell a warning; of equal ones of a run only the first is shown."""
        self.tell(events.Status(text=text, level="warning"))


def _checks(prepared: Prepared, location: str) -> Iterator[tuple[Extension, list[str]]]:
    """What is run before anything is unpacked, with arguments."""
    if prepared.check is not None:
        yield prepared.check, [location]
    configure = [extension.name for extension in prepared.configure if extension.built_in]
    if configure:
        yield CONFIGURATION_CHECK, configure


def _check_place(subsystem: Prepared, around: SystemTree) -> None:
    """Raise MorphError where a subsystem would be written to a device or pipe of the system around
    it: to this machine's, or to an empty file that stands for one and has no content."""
    location = subsystem.deployment.location
    place = resolve_in(around.root, location)
    stand_ins = {around.root / device.path for device in around.devices}
    if place in stand_ins or not (place.is_dir() or place.is_file() or not place.exists()):
        raise MorphError(
            f'the location "{location}" is no file or directory of the system that it is deployed '
            "into, but a device or pipe",
            reason=Reason.DEPLOY,
        )


def _of_subsystem(prepared: Prepared, error: MorphError) -> MorphError:
    message = f"subsystem {prepared.deployment.name}: {error.message}"
    return MorphError(message, reason=error.reason, hint=error.hint)
