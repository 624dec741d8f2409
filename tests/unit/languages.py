"""Short reviews in several languages, lines of text and label: what files in the encodings of these languages hold."""

CHINESE = ["这部电影真的很好看,正面", "非常糟糕的体验,负面", "服务态度很差,负面", "物流很快，质量不错,正面"]
TAIWANESE = ["這部電影真的很好看,正面", "非常糟糕的體驗,負面", "服務態度很差,負面", "物流很快，品質不錯,正面"]
JAPANESE = ["この映画は本当に面白かった,良い", "とても悪い体験でした,悪い", "サービスがひどい,悪い"]
KOREAN = ["이 영화는 정말 재미있었어요,긍정", "매우 나쁜 경험이었습니다,부정", "서비스가 별로예요,부정"]
RUSSIAN = ["Этот фильм был очень хорош,хорошо", "Ужасный опыт,плохо", "Обслуживание плохое,плохо"]
FRENCH = ["Le café était très bon,positif", "Une très mauvaise expérience,négatif", "Où êtes-vous ?,positif"]
