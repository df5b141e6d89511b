"""The routes by which a visitor acts on a live run: stops it, ends its thinking, answers its approvals."""

from fastapi import APIRouter

from agent.turns import Turns
from runs.errors import ChatError
from runs.live import LiveRun
from transports.dependencies import CurrentVisitor
from transports.run_lookup import RunHandle, get_run
from transports.schemas import Approval


def add_run_controls(router: APIRouter, turns: Turns) -> None:
    """Adds `POST /stop`, `POST /end_thinking` and `POST /approve` below `/runs/{run_id}`."""

    @router.post("/runs/{run_id}/stop", tags=["runs"])
    async def stop(run_id: str, visitor: CurrentVisitor) -> dict[str, str]:
        """Stops a run and answers when it has ended. It may be called again."""
        run = await get_run(turns, run_id, visitor)
        if run.live:
            await run.live.stop("user")
        return {"status": (await run.end(turns)).type}

    @router.post("/runs/{run_id}/end_thinking", tags=["runs"])
    async def end_thinking(run_id: str, visitor: CurrentVisitor) -> dict[str, str]:
        """Ends the thinking of the run's model, which then answers; 409 if it is not thinking."""
        run = _live(await get_run(turns, run_id, visitor), "its model no longer thinks")
        run.end_thinking()
        return {"status": run.state.phase}

    @router.post("/runs/{run_id}/approve", tags=["runs"])
    async def approve(run_id: str, approval: Approval, visitor: CurrentVisitor) -> dict[str, str]:
        """Answers a tool call that waits for approval; 409 if it does not wait."""
        run = _live(await get_run(turns, run_id, visitor), "nothing in it waits for an approval")
        run.tool_calls.answer(approval.tool_call_id, approval.answer())
        return {"status": run.state.phase}


def _live(run: RunHandle, consequence: str) -> LiveRun:
    """Returns a run that has not ended. Raises ChatError `busy`, with what follows from its end."""
    if run.live is None or run.ended:
        raise ChatError("busy", f"This run has ended: {consequence}.")
    return run.live
