"""Export to ComfyUI: a checkpoint with the original key names, and a workflow that samples it as it was trained."""

from unistep.export.comfy.write import write_comfy as write_comfy
