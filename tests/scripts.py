# ruff: noqa: RUF001
"""Words of many scripts in texts that hold them, for tests of the searches: each search must find them all."""

import unicodedata

NFD = "NFD"


def decomposed(text: str) -> str:
    return unicodedata.normalize(NFD, text)


HELD: dict[str, tuple[str, str]] = {
    "Chinese, in the middle": ("灯塔守卫者看见了鲸鱼。", "看见"),
    "Chinese, three characters": ("我们在北京大学学习中文。", "京大学"),
    "Chinese, one character": ("灯塔守卫者看见了鲸鱼。", "鲸"),
    "Chinese, the last character": ("灯塔守卫者看见了鲸鱼", "鱼"),
    "Chinese and Latin": ("我用iPhone手机上网", "iphone手机"),
    "rare Chinese": ("這是𠮷野家的牛肉飯", "𠮷野"),
    "Japanese, in the middle": ("昨日灯台守が鯨を見ました", "鯨を見"),
    "Katakana, half width": ("私はｺﾝﾋﾟｭｰﾀを買いました", "コンピュータ"),
    "Thai": ("ฉันเห็นปลาวาฬในทะเลเมื่อวานนี้", "ปลาวาฬ"),
    "Thai, am": ("เราไปดูน้ำตกกันเถอะ", "น้ำตก"),
    "Lao": ("ຂ້ອຍເຫັນປາວານໃນທະເລ", "ປາວານ"),
    "Khmer": ("ខ្ញុំបានឃើញត្រីបាឡែននៅសមុទ្រ", "បាឡែន"),
    "Burmese": ("ပင်လယ်ထဲမှာဝေလငါးကိုတွေ့တယ်", "ဝေလငါး"),
    "Korean with a particle": ("우리는 학교에서 만났다", "학교"),
    "Korean, decomposed": (decomposed("우리는 학교에서 만났다"), "학교"),
    "Korean, searched decomposed": ("우리는 학교에서 만났다", decomposed("학교")),
    "composed": ("The café is open", decomposed("café")),
    "decomposed": (decomposed("The café is open"), "café"),
    "without the accent": ("The café is open", "cafe"),
    "with the accent": ("The cafe is open", "café"),
    "Vietnamese": ("Tôi thích ăn phở bò", "pho bo"),
    "full width": ("ＧＬＡＳＳＢＯＸ １２３", "glassbox"),
    "full width searched": ("the glassbox", "ＧｌａｓｓＢｏｘ"),
    "ligature": ("an ﬁne day", "fine"),
    "German sharp s": ("Die lange Straße", "STRASSE"),
    "Turkish": ("İSTANBUL'da", "istanbul"),
    "Turkish, dotless": ("ısparta gülü", "ISPARTA"),
    "Polish": ("Miasto Łódź", "lodz"),
    "Greek": ("Ο ΟΔΥΣΣΕΥΣ γύρισε", "οδυσσεύς"),
    "Russian, yo": ("Всё хорошо", "все"),
    "Russian, stressed": (decomposed("за́мок на горе"), "замок"),
    "Arabic with vowels": ("كَتَبَ الطَّالِبُ دَرْسَهُ", "الطالب"),
    "Arabic with tatweel": ("هذا كتـــاب جديد", "كتاب"),
    "Arabic, hamza": ("أحمد هنا", "احمد"),
    "Persian yeh": ("دوستی خوب", "دوستي"),
    "Hebrew with points": ("שָׁלוֹם עֲלֵיכֶם", "שלום"),
    "Hindi": ("मुझे किताब पढ़ना पसंद है", "किताब"),
    "Hindi, nukta": ("मुझे पढ़ना है", "पढ\u093cना"),
    "Tamil": ("நான் புத்தகம் படிக்கிறேன்", "புத்தகம்"),
    "Arabic digits": ("رقم ٤٧١١ هنا", "4711"),
    "soft hyphen": ("a hyphen\u00adated word", "hyphenated"),
}
"""A text, and words of it as somebody else writes them."""

UNLIKE: dict[str, tuple[str, str]] = {
    "Hindi by one letter": ("कमल का फूल", "किताब"),
    "Hindi by its marks": ("पानी", "नीली"),
    "Kana with and without voice": ("かき", "がぎ"),
    "Cyrillic short i": ("мои", "мой"),
    "Thai vowels": ("มา", "มี"),
    "Chinese by one character": ("大海", "大学"),
    "English derivation": ("the universe", "university"),
}
"""A text, and a word that is not in it."""
