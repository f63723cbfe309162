"""Exports a model for production: ONNX, SavedModel, frozen graph, TensorFlow Lite.

    python3 export_model.py --model_dir=./lcqmc_output --format=onnx \\
        --precision=int8 --output_dir=./lcqmc_onnx

The same texts then run through TensorFlow and through the export in its own runtime;
what differs too much is refused. The directory written holds vocabulary, labels and
checksums, too: for an ONNX export, albert_zh.load(DIRECTORY) needs nothing else.
"""

from albert_zh import command_line  # isort: split

from albert_zh.base import console
from albert_zh.serving import export
from albert_zh.serving.formats import FORMATS
from albert_zh.serving.onnx_graph import PRECISIONS
from albert_zh.training import estimator as estimators


def build_parser():
    """Returns the command's parser."""
    parser = command_line.ArgumentParser(__doc__.split("\n\n")[0])
    add = parser.add_argument
    add("--model_dir", required=True, help="folder of the model, or of its training")
    add("--output_dir", required=True, help="to write; must be new or empty")
    add("--format", choices=sorted(FORMATS), required=True, help="of the export")
    text = "of the weights; float16 and int8: onnx and tflite only"
    add("--precision", choices=PRECISIONS, default="float32", help=text)
    text = "labelled file of the task; refuses an export that predicts otherwise"
    add("--dev_file", help=text)
    parser.add_bool("--encoder", False, "leave out the head of a fine-tuned model")
    return parser


def main(args):
    """Exports a model; see `build_parser` for the arguments."""
    estimators.set_up_process()
    report = export.export(
        args.model_dir,
        args.output_dir,
        args.format,
        args.precision,
        args.dev_file,
        args.encoder,
    )
    console.show(export.format_report(report))
    console.show("Model saved to {}\n".format(args.output_dir))


if __name__ == "__main__":
    command_line.run(main, build_parser())
