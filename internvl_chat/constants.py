"""Names that models, prompts and data files share. Ids are always looked up by these names."""

IMG_START = "<img>"
IMG_END = "</img>"
IMG_CONTEXT = "<IMG_CONTEXT>"
REF_START, REF_END = "<ref>", "</ref>"
BOX_START, BOX_END = "<box>", "</box>"

# All that InternVL adds to a language model's tokens, in the order of its own tokenizers.
SPECIAL_TOKENS = (IMG_START, IMG_END, IMG_CONTEXT, "<quad>", "</quad>", REF_START, REF_END, BOX_START, BOX_END)

# What closes a message in InternVL's chats.
CHAT_END_TOKENS = ("<|im_end|>", "<|end|>")

# What begins and ends messages and texts in the chats of all families, and what stands for pixels there: a text that
# holds one would be read as another conversation.
STEERING_TOKENS = (
    "<|im_start|>",
    *CHAT_END_TOKENS,
    *("<|user|>", "<|assistant|>", "<|system|>", "<|endoftext|>", "<s>", "</s>"),
    *("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    *("<end_of_utterance>", "<fake_token_around_image>"),
    *(IMG_START, IMG_END, IMG_CONTEXT),
)

# Placeholders in annotations: one `<image>` an image or frame, one `<video>` a video.
IMAGE_PLACEHOLDER = "<image>"
VIDEO_PLACEHOLDER = "<video>"
# What a control writes into a question where a region's token is to stand; each family has a token of its own for it.
REGION_PLACEHOLDER = "<bbox>"

# Boxes are thousandths of the picture's side, 0 to 1000.
BOX_SCALE = 1000

# Label of a position that no loss is computed on (torch's cross entropy default).
IGNORE_INDEX = -100

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Mean and standard deviation of the pixels, by the name of `--normalize_type`.
NORMALISATIONS = {
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
    "clip": ((0.4814546, 0.4578275, 0.40821073), (0.2686295, 0.2613025, 0.2757711)),
    "siglip": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}

# Longest answer of a model in tokens, unless asked for otherwise: nobody's caption is cut off by it.
MAX_NEW_TOKENS = 512

# Exit code of a command that was stopped by Ctrl-C, as a shell's own.
INTERRUPTED = 130

# Exit code where nobody reads on what is printed, as a shell's own for SIGPIPE.
UNREAD = 141

# Of a file of features that stand for a video.
FEATURES_SUFFIX = ".safetensors"

VIDEO_SUFFIXES = frozenset(".mp4 .mkv .webm .avi .mov .m4v .mpg .mpeg .ts .flv".split())
