"""Words by which a question asks for what is so at this moment, language by language.

Words that are as often timeless (price, current as in electric current, now as in what now) count only where what
stands beside them makes them a matter of the moment. Every row is matched on folded text, so that accents may be left
out in what is asked.
"""

from __future__ import annotations

_ASSETS = (
    r"(?:bitcoins?|btc|ethereum|ether|eth|dogecoin|crypto(?:currency|currencies)?|gold|silver|platinum|crude|oil"
    r"|petrol"
    r"|gasoline|gas|diesel|natural gas|shares?|stocks?|dollars?|euros?|pounds? sterling|yen|rupees?|rubles?"
    r"|ouro|prata|dólar|petróleo|gasolina|ações|oro|plata|acciones|argent|pétrole|essence|actions"
    r"|goldes?|silber|öl|benzin|aktien?|oro|argento|azioni|tesla|apple stock|nvidia|s&p 500|nasdaq)"
)
"""What is traded by the minute."""
_FRENCH_ASSETS = r"(?:or|bitcoin|argent|pétrole|essence|gaz|actions?|dollar|euro|ethereum)"

_CHANGING = (
    r"(?:presidents?|vice[- ]president|prime minister|premier|chancellor|monarch|king|queen|pope|mayor|governor"
    r"|ministers?|secretary|senators?|speaker|leaders?|government|administration|parliament|congress|ceo|cfo|cto"
    r"|chair"
    r"|chairman|chairwoman|chairperson|head of|head coach|coach|manager of|captain of|champions?|title holder|owners?"
    r"|record(?: holder)?|prices?|costs?|worth|rates?|version|release|season|score|standings|rankings?|ranked"
    r"|population|weather|temperature|wind|humidity|air quality|traffic|events|affairs|news|trends?|laws?|legislation"
    r"|wages?|salary|stocks?|shares?|exchange|market|gdp|debt|deficit|inflation|unemployment|interest|leadership"
    r"|holder"
    r"|moon phase|phase of the moon|members of|state of (?:the )?(?:affairs|art|economy|market|war|world|union"
    r"|climate)"
    r"|situation|balance|year's|value(?! of (?:an?|the|my|this|each) (?:variable|field|cell|input|counter|slider"
    r"|select"
    r"|element|property|parameter|pointer|register|key|item|row|column|attribute|option|object)))"
)
"""What a current one of differs from one month to the next. Not directories, liabilities, processes or ratios."""
_BETWEEN = (
    r"(?:(?!(?:flow|flows|through|of|and|or|the|an?|is|does|do|to|at|in|with|affects?|depends?|changes?|density)\b)"
    r"[\w.'’-]+ ){0,2}"
)
"""Adjectives: the current British prime minister. No verb: how does current affect temperature."""
_CLOCK = r"(?:date|time|day|weekday|month|year|hour|week|timestamp|datetime)"

CLOCK = rf"(?:current (?:{_CLOCK} ?(?:and |or )?)+|(?:today['’]?s|the present) {_CLOCK})"
"""Asks for the clock; where a program or a spreadsheet is named, asks for the way to read it (see ``TOOLS``)."""
TOOLS = (
    r"(?:python\d?|javascript|typescript|js|java|kotlin|swift|rust|golang|ruby|php|perl|scala|julia|matlab|sql"
    r"|mysql|tsql"
    r"|t-sql|plsql|postgres(?:ql)?|sqlite|mongodb|bash|shell|zsh|linux|unix|powershell|batch|excel|vba|spreadsheets?"
    r"|google sheets|pandas|numpy|django|flask|react|angular|vue|node(?:\.?js)?|html|css|git|docker|kubernetes"
    r"|terraform"
    r"|ansible|makefile|arduino|android|flutter|dart|laravel|wordpress|spring|dplyr|latex|vim|emacs|sap|abap"
    r"|tableau|dax"
    r"|power bi|oracle|snowflake|bigquery|spark|airflow|jenkins|c|c\+\+|c#|\.net|r|terminal|command line|cmd"
    r"|programming"
    r"|function|script|code|variable|column|cell|formula|query|datetime|strftime|timestamp|api)"
)

WORKS = (
    r"(?:sang|sung|sing|sings|songs?|lyrics|chords|albums?|band|movie|film|novel|book|newspaper|recorded|cover(?:ed)?"
    r"|wrote|written|composed|composer|poem|episode|series|musical|directed|starring|published|melody|tune"
    r"|beatles|play)"
)
"""Where one of these is said, a day with a capital letter is a title: who sang Yesterday?"""
TITLES = r"(?:Yesterday|Today|Tomorrow|Tonight|Now|Hoje|Ontem|Amanhã|Hoy|Ayer|Mañana|Demain|Hier|Heute|Gestern)"

_WEEKDAYS = r"(?:monday|tuesday|wednesday|thursday|friday|saturday|sunday)"
_NOW = r"\b[^.?!]{0,60}\b"

SIGNS = {
    "en": (
        r"today|tonight|tomorrow|yesterday|nowadays|these days|latest|newest|breaking news"
        rf"|this (?:morning|afternoon|evening|weekend|week|month|year|{_WEEKDAYS}|season)"
        rf"|(?:last|past|coming|next) (?:night|weekend|{_WEEKDAYS})"
        r"|(?:last|next) (?:week|month|year)(?! of\b)"
        r"|(?:right|just|even|as of|open|on|until|up to) now|at the moment|what time is it"
        r"|what(?:['’]?s| is) the (?:time|date|day|year)(?= *(?:[?.!,]|$|now|right|there|here))"
        r"|what(?:['’]?s| is) the time in|(?:what|which) (?:day|date|month|year)(?: of the \w+)? is (?:it|this)"
        rf"|(?:who|what|where|which|how \w+)(?:['’]s|['’]re| is| are){_NOW}now(?= *(?:[?.!]|$))|{CLOCK}"
        r"|(?:currently|at present)|(?<!my )(?<!your )(?<!our )(?<!their )(?<!direct )(?<!alternating )(?<!electric )"
        rf"(?<!eddy )(?<!ocean )current {_BETWEEN}{_CHANGING}"
        r"|recent (?:news|events|developments|versions?|releases?|elections?|updates?)"
        r"|weather forecast|weather (?:like )?(?:in|for|at)|(?:what(?:['’]?s| is)|how(?:['’]?s| is)) the weather"
        r"|will it (?:rain|snow)|is it (?:raining|snowing|storming|sunny|cloudy|windy|foggy)"
        r"|how (?:hot|cold|warm) is it (?:in|at|outside|there)|the temperature (?:in|outside)"
        r"|exchange rates?|(?:stock|share|market) prices?"
        rf"|(?:price|worth|value|cost) of (?:an? |one |the )?{_ASSETS}|{_ASSETS}(?:['’]s)? (?:price|worth|trading)"
        rf"|how much (?:is|are) (?:an? |one |the )?{_ASSETS} (?:worth|trading|now|in|per|a|going)"
        rf"|how much (?:is|are) (?:an? |one |the )?{_ASSETS}(?= *[?.!]|$)"
        rf"|how much (?:does|do) (?:an? |one |the )?{_ASSETS} cost"
        r"|live scores?|(?:who (?:is winning|won the (?:game|match|election))(?= *[?.!]|$))|news (?:about|on|from)"
    ),
    "pt": (
        r"hoje|amanhã|ontem|anteontem|neste momento|agora mesmo|atualmente|est[ae] (?:manhã|noite|semana|mês|ano)"
        r"|(?:este|neste|próximo) (?:fim de semana|mês|ano)|n?esta semana|semana (?:passada|que vem)|próxima semana"
        r"|(?:mês|ano|fim de semana) (?:passado|que vem)"
        r"|que horas (?:são|é)|que (?:dia|data|mês|ano) é(?= *(?:[?.!]|$|hoje))|em que (?:dia|mês|ano) estamos"
        rf"|(?:qual|quem|quanto|onde){_NOW}agora(?= *(?:[?.!]|$))|cotação"
        r"|(?:presidente|primeiro-ministro|versão|taxa|cotação|valor|governo|ministr[oa]|preço|população|situação"
        r"|papa|rei|governador|prefeito|campeão|recorde|temperatura) atual"
        r"|atua(?:l|is) (?:presidente|primeiro-ministro|versão|taxa|valor|governo|ministr[oa]|preço|população"
        r"|situação"
        r"|papa|rei|governador|prefeito|campeão|recorde|temperatura)"
        r"|previsão do tempo|como está o tempo|(?:vai chover|está chovendo|está a chover)|que tempo faz"
        rf"|(?:preço|valor) (?:atual )?d[oae] {_ASSETS}|{_ASSETS} preço|quanto (?:custa|vale|está|é) (?:o |a "
        rf"|um |uma )?{_ASSETS}"
        r"|notícias|última versão|mais recente"
    ),
    "es": (
        r"hoy|ayer|anteayer|ahora mismo|actualmente|en este momento|est[ea] (?:mañana|noche|semana|mes|año)"
        r"|este fin de semana|semana (?:pasada|que viene|próxima)|próxima semana|(?:mes|año) (?:pasado|que viene)"
        r"|qué horas? (?:es|son)|qué (?:día|fecha|mes|año) es(?= *(?:[?.!]|$|hoy|ahora))|a qué (?:día|fecha) estamos"
        r"|en qué (?:día|mes|año) estamos|(?<!la )mañana|pronóstico del tiempo|qué tiempo hace"
        r"|cómo está el (?:tiempo|clima)"
        r"|va a llover|está lloviendo"
        rf"|(?:quién|cuál|cuánto|dónde){_NOW}ahora(?= *(?:[?.!]|$))"
        r"|(?:presidente|primer ministro|versión|tasa|valor|gobierno|ministr[oa]|precio|población|situación|papa|rey"
        r"|gobernador|alcalde|campeón|récord|temperatura) actual"
        r"|actual (?:presidente|primer ministro|versión|tasa|valor|gobierno|ministr[oa]|precio|población|situación"
        r"|papa|rey|gobernador|alcalde|campeón)"
        rf"|cotización|(?:precio|valor) (?:actual )?del? {_ASSETS}|cuánto (?:cuesta|vale|está) (?:el |la |un "
        rf"|una )?{_ASSETS}"
        r"|noticias|última versión|más reciente"
    ),
    "fr": (
        r"aujourd['’]hui|demain|hier|avant-hier|en ce moment|actuellement|cette (?:semaine|année|nuit)"
        r"|ce (?:matin|soir|mois|week-end|weekend)|(?:semaine|année) (?:dernière|prochaine)|(?:mois"
        r"|an) (?:dernier|prochain)"
        r"|quelle heure (?:est-il|il est)|il est quelle heure|(?:quel|on est quel) jour(?: sommes-nous| est-on"
        r"|(?= *[?.!]|$))"
        r"|quelle est la date(?= *(?:[?.!]|$|du jour))|(?:en )?quelle année sommes-nous|quel mois sommes-nous"
        rf"|(?:qui|quel|quelle|où|combien){_NOW}maintenant(?= *(?:[?.!]|$))"
        r"|(?:président|premier ministre|version|taux|valeur|gouvernement|ministre|prix|population|situation|pape|roi"
        r"|maire|champion|record|température) actuel(?:le)?"
        r"|actuel(?:le)? (?:président|premier ministre|version|taux|valeur|gouvernement|ministre|prix|population"
        r"|situation"
        r"|pape|roi|maire|champion)"
        r"|météo|quel temps fait-il|va-t-il pleuvoir|pleut-il|est-ce qu['’]il pleut"
        rf"|(?:prix|cours|valeur) (?:du|de la|de l['’]|des) ?{_FRENCH_ASSETS}"
        rf"|combien (?:coûte|vaut|coûtent|valent) (?:le |la |l['’]|un |une |les )?{_FRENCH_ASSETS}"
        r"|actualités|dernières nouvelles|dernière version|plus récent(?:e|s|es)?"
    ),
    "de": (
        r"heute|gestern|vorgestern|übermorgen|derzeit|zurzeit|im moment|gerade jetzt|momentan"
        r"|diese[nrsm]? (?:woche|wochenende|monat|jahr)|(?:letzte|nächste|vergangene)[nrsm]? (?:woche|wochenende"
        r"|monat|jahr)"
        r"|wie spät ist es|wie ?viel uhr|(?:welche[rns]?|den) (?:tag|datum|wievielten|jahr|monat) (?:ist|haben wir)"
        rf"|(?:wer|was|wo|welche[rsn]?|wie \w+){_NOW}jetzt(?= *(?:[?.!]|$))"
        r"|wettervorhersage|wie (?:ist|wird) das wetter|wetter in|wird es (?:regnen|schneien)|(?:regnet|schneit) es"
        r"|(?<!mein )(?<!meine )(?<!meinen )aktuell(?:e|er|en|es)? (?:[\w-]+ ){0,2}?(?:[\w-]*"
        r"(?:präsident(?:in)?|kanzler(?:in)?|minister(?:in)?|leitzins|zins(?:en|satz|sätze)?|preise?|kurse?|rate"
        r"|quote"
        r"|wetter|temperatur|lage|stand|regierung|meister|papst|bürgermeister(?:in)?|trainer|rekord|inflation"
        r"|einwohnerzahl"
        r"|bevölkerung|version|gesetz|nachrichten))"
        r"|neueste[nrs]?|(?<!am )(?<!jeden )(?<!guten )morgen|wechselkurs|aktienkurse?"
        rf"|(?:preis|kurs|wert) (?:von|des|der) {_ASSETS}|wie ?viel (?:kostet|ist) (?:ein |eine |der |die "
        rf"|das )?{_ASSETS}"
        r"|nachrichten (?:über|aus)"
    ),
    "it": (
        r"oggi|domani|dopodomani|ieri|adesso|attualmente|in questo momento|che or[ae] (?:sono|è)|che giorno è"
        r"|quest[ao] (?:settimana|mese|anno|mattina|sera|notte|fine settimana)|(?:settimana|mese"
        r"|anno) (?:scors[oa]|prossim[oa])"
        r"|prossim[oa] (?:settimana|mese|anno)|previsioni del tempo|che tempo fa|sta piovendo|meteo"
        r"|(?:presidente|versione|tasso|prezzo|governo|ministro|papa) attuale|attuale (?:presidente|versione"
        r"|tasso|prezzo"
        rf"|governo|ministro|papa)|tasso di cambio|(?:prezzo|valore) (?:del|dell['’]|della|di) ?{_ASSETS}"
        rf"|quanto (?:costa|vale) (?:il |la |l['’]|un )?{_ASSETS}|ultime notizie|ultima versione"
    ),
    "pl": (
        r"dziś|dzisiaj|dzisiejsz\w+|jutro|pojutrze|wczoraj|przedwczoraj|teraz|obecnie|w tej chwili"
        r"|w tym (?:tygodniu|miesiącu|roku)|ten weekend|(?:zeszłym|przyszłym|ubiegłym) (?:tygodniu|miesiącu|roku)"
        r"|któr[aą] (?:jest )?(?:teraz )?godzin[aę]|jaki (?:jest )?(?:dzisiaj )?dzień|jak[aą] (?:jest "
        r"|będzie )?pogod[aę]"
        r"|pogoda (?:w|na|dla)|prognoza pogody|czy pada"
        r"|(?:obecn|aktualn)\w+ (?:\w+ )?(?:prezydent\w*|premier\w*|kurs\w*|cen\w+|wersj\w+|rząd\w*|stop\w+"
        r"|papież\w*)"
        r"|kurs (?:euro|dolara|franka|funta|walut|bitcoina)|cen[ay] (?:złota|ropy|bitcoina|srebra)"
        r"|ile kosztuje bitcoin"
        r"|najnowsz\w+|wiadomości z"
    ),
    "tr": (
        r"bugün\w*|yarın\w*|dün|dünkü|şu an(?:da|ki|daki)?|şimdi|saat kaç|hangi gündeyiz|günlerden ne"
        r"|hava (?:durumu|nasıl|kaç derece)|yağmur yağ(?:ıyor|acak)\w*|bu (?:hafta|hafta sonu|ay|yıl|sabah|akşam"
        r"|gece)"
        r"|(?:geçen|gelecek|önümüzdeki) (?:hafta|ay|yıl)|döviz kuru|(?:dolar|euro) (?:kuru|kaç)|altın fiyat\w*"
        r"|bitcoin (?:fiyat\w*|kaç)|güncel|mevcut (?:cumhurbaşkanı|başkan)|son dakika|en son|haberler\w*"
    ),
}
"""Rows of words that stand between spaces."""

SCRIPT_SIGNS = {
    "zh": (
        "今天|今日|今晚|今早|今年|本周|本週|这周|這週|这个(?:星期|周|月)|這個(?:星期|禮拜|月)|本月|明天|明日"
        "|昨天|昨晚|前天|后天|後天|明年"
        "|去年|上周|上週|下周|下週|[上下]个?(?:星期|月)|周末(?=.{0,6}(?:天气|下雨))|几点了|幾點了|(?:现在"
        "|現在)(?:是)?(?:几点|幾點|什么时候|什麼時候|谁|誰)"
        "|(?:现在|現在).{0,12}(?:价格|價格|多少|总统|總統)|几号|幾號|星期几|星期幾|(?:天气|天氣)(?:怎么样|怎麼樣"
        "|如何|预报|預報|好吗)|的(?:天气|天氣)"
        "|(?:天气|天氣)[?？。]?$|气温|氣溫|(?:正在|会|會)下雨|在下雨|汇率|匯率|股价|股價|股市行情|金价|金價|油价"
        "|油價|币价|比特币.{0,4}(?:价格|多少)"
        "|比特幣.{0,4}(?:價格|多少)|最新|近况|近況|新闻|新聞|(?:现任|現任|当前|當前|目前)的?.{0,6}"
        "(?:总统|總統|总理|總理|主席|首相|价格|價格|利率|汇率|匯率|版本|人口|气温|天气|天氣|局势|首席执行官|ceo)"
    ),
    "ja": (
        "今日|本日|昨日|一昨日|明日|明後日|今夜|今晩|今朝|今週|来週|先週|週末の(?:天気|予報)|今月|来月|先月|今年"
        "|来年|昨年|去年|何曜日(?:です|だ|[?？]|$)"
        "|(?:今|いま|現在)(?:は)?何時|今何年|何時です(?:か)?[?？。]?$|(?:天気|てんき)(?:は|予報|を教|[?？。]|$)"
        "|気温は|雨(?:は|が)降って|為替|株価|円相場"
        "|最新|ニュース|(?:現在|今|現職)の.{0,8}(?:首相|総理|大統領|社長|天気|気温|価格|値段|レート|金利|順位"
        "|人口|時刻|状況|バージョン)"
        "|ビットコイン.{0,3}(?:価格|値段|いくら)|(?:金|原油|ガソリン)の?価格"
    ),
    "ko": (
        "오늘|내일|모레|어제|그저께|지금|현재 ?(?:대통령|총리|시각|시간|가격|환율|금리|날씨|기온|버전|인구|상황"
        "|사장)|이번 ?(?:주|달|주말)"
        "|다음 ?(?:주|달)|지난 ?(?:주|달)|올해|작년|내년|날씨(?:는|가|를|어때|예보|[ ?.]|$)|환율|주가|시세|최신"
        "|뉴스|몇 ?시(?:야|예요|에요|죠|인가|입니까|니|지)"
        "|며칠(?:이야|이에요|인가|입니까)|무슨 ?요일|비트코인 ?(?:가격|얼마)|비(?:가)? ?(?:와요|오나요|올까)"
    ),
    "ar": (
        "(?<!في )(?<!خلال )(?<![ء-ي])و?(?:اليوم|غدا|امس|البارحه|الليله|الان|حاليا|هذا (?:الاسبوع|الشهر|العام"
        "|الصباح)|هذه السنه"
        "|(?:الاسبوع|الشهر|العام) (?:الماضي|القادم))(?![ء-ي])|كم الساعه|كم (?:هو )?تاريخ|ما (?:هو )?تاريخ اليوم"
        "|في اي (?:يوم|سنه|عام) نحن"
        "|(?:حاله )?الطقس (?:في|اليوم|غدا|الان)|(?:ما|كيف)(?: هو| هي)?(?: حال| حاله)? الطقس|هل (?:تمطر|ستمطر)"
        "|سعر (?:الصرف|صرف|الذهب|النفط|الدولار|اليورو|البيتكوين|بيتكوين)|احدث|اخر (?:الاخبار|اصدار)|اخبار"
        "|(?:الرئيس|رئيس الوزراء|الملك|الوزير|السعر|الاصدار|الوضع) الحالي"
    ),
    "ru": (
        r"(?<!\w)(?:сегодня(?:шн\w+)?|завтра(?:шн\w+)?|послезавтра|вчера(?:шн\w+)?|позавчера|сейчас|в данный момент"
        r"|на (?:этой|прошлой|следующей) неделе|в (?:этом|прошлом|следующем) (?:году|месяце)|в эти выходные"
        r"|котор(?:ый|ого) (?:сейчас )?час(?!\w)|сколько (?:сейчас )?времени(?= *(?:[?.!]|$))|какое (?:сейчас "
        r"|сегодня )?число"
        r"|какой (?:сейчас |сегодня )?(?:день недели|год)(?= *(?:[?.!]|$))|какая (?:\w+ )?погода|погода (?:в|на)"
        r"|прогноз погоды"
        r"|ид[её]т ли (?:сейчас )?(?:дождь|снег)|(?:текущ|нынешн|действующ)\w+ (?:\w+ )?(?:президент|премьер"
        r"|курс|цен|верси|ставк"
        r"|министр|мэр|губернатор|погод|ситуаци|населени|температур|чемпион)\w*|курс (?:доллара|евро|рубля|юаня"
        r"|биткоин\w*|валют\w*)"
        r"|цен[аыу] (?:на )?(?:золот\w+|нефт\w+|бензин\w*|биткоин\w*)|сколько стоит биткоин|последн\w+ (?:новост"
        r"|верси)\w+|новост\w+"
        r"|новейш\w+)(?!\w)"
    ),
    "hi": (
        "(?<![\u0900-\u097f])(?:आज|कल|परसों|अभी|इस समय|इस वक्त|फिलहाल|इस (?:हफ्ते|सप्ताह|महीने|साल)|(?:पिछले"
        "|अगले) (?:हफ्ते|सप्ताह|महीने|साल)"
        "|(?:वर्तमान|मौजूदा) (?:प्रधानमंत्री|राष्ट्रपति|मुख्यमंत्री|कीमत|दर|संस्करण|स्थिति|सरकार)|(?:का )?मौसम (?:कैसा"
        "|कैसी|की जानकारी|का हाल)"
        "|मौसम कैसा|कितने बजे हैं|(?:समय|टाइम) क्या (?:हुआ|हो रहा|है)|कौन सा दिन है|विनिमय दर|(?:सोने|चांदी"
        "|पेट्रोल|डीजल|डॉलर|बिटकॉइन) (?:का|की) "
        "(?:भाव|कीमत|दाम|रेट)|ताज़ा|ताजा (?:खबर|समाचार)|नवीनतम|समाचार|खबरें)(?![\u0900-\u097f])"
    ),
}
"""Rows of languages that write no spaces, or whose script no other row has."""
