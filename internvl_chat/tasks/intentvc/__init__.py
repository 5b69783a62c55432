"""Captions of objects in videos: BLEU, METEOR, CIDEr and ROUGE-L, on IntentVC's folders or any records."""

from internvl_chat.tasks.intentvc.questions import read as read
