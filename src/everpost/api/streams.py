"""Streams and projects, and a whole document of what there should be. The rules are catalog's."""

from everpost.api import relay_views as views
from everpost.api.bodies import ApplyBody
from everpost.api.relay_shapes import DifferenceAnswer, ProjectAnswer, StreamAnswer
from everpost.api.requests import Request
from everpost.api.services import Services
from everpost.api.shapes import ListAnswer
from everpost.catalog import ProjectFields, StreamFields
from everpost.model.errors import NotFound

__all__ = ["apply", "list_projects", "list_streams", "patch_project", "patch_stream"]

_LONGEST_NUMBER = 18


async def list_streams(services: Services, request: Request) -> ListAnswer[StreamAnswer]:
    """The project's streams, by name."""
    await services.directory.refresh()
    return ListAnswer([views.stream(row) for row in services.streams.list(request.credential)])


async def patch_stream(services: Services, request: Request, body: StreamFields) -> StreamAnswer:
    """Change what is given of a stream. Its pool is the operator's to choose. It takes effect in
    every process within two seconds, for mail that waits, too."""
    name = request.params[0]
    return views.stream(await services.streams.change(request.credential, name, body))


async def list_projects(services: Services, request: Request) -> ListAnswer[ProjectAnswer]:
    """All projects, oldest first."""
    await services.directory.refresh()
    return ListAnswer([views.project(row) for row in services.projects.list(request.credential)])


async def patch_project(services: Services, request: Request, body: ProjectFields) -> ProjectAnswer:
    """Change what is given of a project."""
    text = request.params[0]
    if not (text.isascii() and text.isdigit() and len(text) <= _LONGEST_NUMBER):
        raise NotFound("Project not found")
    return views.project(await services.projects.change(request.credential, int(text), body))


async def apply(services: Services, request: Request, body: ApplyBody) -> DifferenceAnswer:
    """Make what there is what the document says, all of it or nothing; applied again it changes
    nothing. The answer is the difference. A refusal names the place: `relays[2].weight`."""
    found = await services.applier.apply(
        request.credential, body, prune=body.prune, dry_run=body.dry_run
    )
    return views.difference(found, applied=not body.dry_run)
