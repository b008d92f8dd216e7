"""Output for those who were away: what steps that run have printed, and what came when nobody could
be told of it."""

from __future__ import annotations

from collections import OrderedDict

from distbuild.builds import Build, Follower
from distbuild.framing import MAX_OUTPUT
from distbuild.messages import StepOutput
from distbuild.policy.state import State
from distbuild.status.joblogs import JobLogs

#: So many jobs are remembered whose output nobody could be told, and so many builds with such jobs.
_MOST_MISSED = 1000


class Replays:
    """Workers tell a controller that was restarted at once what they printed, which is before it
    knows its builds again."""

    def __init__(self, state: State, logs: JobLogs) -> None:
        self._state = state
        self._logs = logs
        self._missed: OrderedDict[str, str] = OrderedDict()  # keys by job
        self._over: OrderedDict[str, list[tuple[str, str]]] = OrderedDict()  # jobs and steps

    def note_missed(self, job: str, key: str) -> None:
        """A job printed something, and nobody followed a build that wants its key."""
        self._missed[job] = key
        while len(self._missed) > _MOST_MISSED:
            self._missed.popitem(last=False)

    def note_over(self, build: Build) -> None:
        """A build is over. Who was away until now may come back and ask for it."""
        missed = [
            (job, build.by_key[key].name)
            for job, key in self._missed.items()
            if key in build.by_key
        ]
        if missed:
            self._over[build.id] = missed
            while len(self._over) > _MOST_MISSED:
                self._over.popitem(last=False)

    def tell_over(self, build: Build, follower: Follower) -> None:
        """Tell who comes back after the end of a build what it missed."""
        for job, name in self._over.get(build.id, ()):
            self._tell_job(build, follower, job, name)

    def tell(self, build: Build, follower: Follower) -> None:
        """Tell a follower, who may have some of it already."""
        jobs = dict(self._missed)
        for key in build.by_key:
            live = self._state.live_job(key)
            if live is not None:
                jobs[live.id] = key
        for job, key in jobs.items():
            source = build.by_key.get(key)
            if source is not None:
                self._tell_job(build, follower, job, source.name)

    def _tell_job(self, build: Build, follower: Follower, job: str, name: str) -> None:
        kept = self._logs.read(job)
        for start in range(0, len(kept.data), MAX_OUTPUT):
            follower.tell(
                StepOutput(
                    build=build.id,
                    step_name=name,
                    job=job,
                    offset=kept.start + start,
                    stdout=kept.data[start : start + MAX_OUTPUT],
                )
            )
