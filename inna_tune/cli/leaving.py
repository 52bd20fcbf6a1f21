"""``inna-tune export``: a model as a file for other runtimes."""

from typing import Annotated

import typer

from inna_tune.cli.console import AsJson, app, one_line_errors, print_json, say
from inna_tune.cli.outputs import PROGRAM, PROGRAM_MARK, Force, check_output


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="File that fit wrote.")],
    output: Annotated[
        str,
        typer.Option("--output", "-o", help="File to write: .onnx, or .pt2 for a program of torch.export."),
    ],
    encoded: Annotated[
        bool,
        typer.Option(
            help="Whether the file reads rows that the model's encoder has encoded. If not given: only where the table has "
            "columns that are not plain numbers."
        ),
    ] = False,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Write a model as ONNX or as a program of torch, to run it elsewhere.

    Example: [bold]inna-tune export churn.inna -o churn.onnx[/bold]
    """
    with one_line_errors():
        from inna_tune.estimators import load, to_module, to_onnx, to_program
        from inna_tune.files import replacing

        path = check_output(output, PROGRAM, "--output", reads={"model": model}, force=force)
        if path.suffix not in (".onnx", ".pt2"):
            raise ValueError(f"output={output!r} must end in .onnx or .pt2")
        fitted = load(model)
        wanted: bool | str = True if encoded else "auto"
        module = to_module(fitted, encoded=wanted)
        if path.suffix == ".onnx":
            to_onnx(fitted, path, encoded=wanted)
        else:
            import torch

            with replacing(path, suffix=path.suffix) as written:
                program = to_program(fitted, encoded=wanted)
                torch.export.save(program, str(written), extra_files={PROGRAM_MARK: ""})
        inputs, outputs = list(module.input_names), list(module.output_names)
        if as_json:
            print_json({"output": str(path), "inputs": inputs, "outputs": outputs})
            return
        say(f"Wrote {path}: {', '.join(inputs)} in, {', '.join(outputs)} out")
        if inputs != ["X"]:
            say("Its rows are encoded ones; inna_tune.estimators.exported_inputs makes them of a table")
