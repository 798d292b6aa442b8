"""Each guard with its own table: what it refuses, and what it must let pass."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.guards import GUARDS, compare, refusal

REFUSED: dict[str, tuple[tuple[str, str], ...]] = {
    "numbers": (
        ("Is there a fee for guests under 12?", "Is there a fee for guests over 12?"),
        ("Do you ship orders below £30?", "Do you ship orders above £30?"),
        ("How do I count from ten?", "How do I count to ten?"),
        ("Where is my order 48213?", "Where is my order 48231?"),
        ("Set a timer for 10 minutes", "Set a timer for 10 hours"),
        ("What changed in version 3.1?", "What changed in version 3.10?"),
        ("What happened on May 3, 2021?", "What happened on May 4, 2021?"),
        ("Book a table at 7pm", "Book a table at 7am"),
        ("Read /var/log/app.log for me", "Read /var/log/web.log for me"),
        ("Is hepatitis B curable?", "Is hepatitis C curable?"),
        ("Solve x + 3 = 9", "Solve x - 3 = 9"),
        ("Quanto é 20% de 300?", "Quanto é 30% de 200?"),
        ("Onde está o pedido 5521?", "Onde está o pedido 5512?"),
    ),
    "polarity": (
        ("Je n'ai pas reçu mon colis, que faire ?", "J'ai reçu mon colis, que faire ?"),
        ("Cancel my subscription", "Don't cancel my subscription"),
        ("How do I enable notifications?", "How do I disable notifications?"),
        ("How do I turn the wifi on?", "How do I turn off the wifi?"),
        ("How do I import my contacts?", "How do I export my contacts?"),
        ("Is it legal to record calls?", "Is it illegal to record calls?"),
        ("Como ativo as notificações?", "Como desativo as notificações?"),
        ("Posso viajar com visto?", "Posso viajar sem visto?"),
        ("¿Cómo activo la cuenta?", "¿Cómo desactivo la cuenta?"),
        ("Comment ouvrir un compte ?", "Comment fermer un compte ?"),
        ("Ist das erlaubt?", "Ist das nicht erlaubt?"),
        ("How do I delete a photo?", "How do I recover a deleted photo?"),
        ("How do I get a voucher?", "How do I use a voucher?"),
        ("What helps against hypotension?", "What helps against hypertension?"),
        ("Qual é o tratamento da hipoglicemia?", "Qual é o tratamento da hiperglicemia?"),
        ("Wann ist die Abmeldung nötig?", "Wann ist die Anmeldung nötig?"),
        ("Wie hoch ist die Einzahlung?", "Wie hoch ist die Auszahlung?"),
    ),
    "substitution": (
        ("Should the proxy speak HTTPS?", "Should the proxy speak HTTP?"),
        ("What is the capital of France?", "What is the capital of Spain?"),
        ("Can dogs eat grapes?", "Can cats eat grapes?"),
        ("How do I sort a list in Python?", "How do I sort a list in Java?"),
        ("What are the symptoms of flu?", "What are the symptoms of malaria?"),
        ("Who directed Inception?", "Who directed Interstellar?"),
        ("Qual é a capital da França?", "Qual é a capital da Espanha?"),
        ("Cachorro pode comer uva?", "Gato pode comer uva?"),
        ("Is sodium nitrate poisonous?", "Is sodium nitrite poisonous?"),
        ("What is prednisone used for?", "What is prednisolone used for?"),
        ("O sulfato de cobre é tóxico?", "O sulfito de cobre é tóxico?"),
        ("Sind Reisekosten absetzbar?", "Sind Heizkosten absetzbar?"),
    ),
    "roles": (
        ("Can a nurse overrule a doctor?", "Can a doctor overrule a nurse?"),
        ("How much does Tom owe Sue?", "What amount does Sue owe to Tom?"),
        ("What can I use instead of wax?", "What can I use wax instead of?"),
        ("Can my tutor grade the exam?", "Can I grade the exam as a tutor?"),
        ("¿Cómo convierto un vídeo en imagen?", "¿De qué manera puedo convertir una imagen a vídeo?"),
        ("Como converter inteiro para texto?", "Como converter texto em inteiro?"),
        ("Flights from Boston to Denver", "Flights from Denver to Boston"),
        ("Convert euros to dollars", "Convert dollars to euros"),
        ("Do you ship to Canada?", "Do you ship from Canada?"),
        ("Did Brazil beat Argentina?", "Did Argentina beat Brazil?"),
        ("Should I eat before exercise?", "Should I exercise before I eat?"),
        ("Voos de Lisboa para Madri", "Voos de Madri para Lisboa"),
        ("Translate hello to Spanish", "Translate hello from Spanish"),
        ("Wie komme ich vom Bahnhof ins Hotel?", "Wie komme ich vom Hotel zum Bahnhof?"),
        ("Como vou do porto para o estádio?", "Como vou do estádio até o porto?"),
        ("¿Cómo voy de la playa al mercado?", "¿Cómo voy del mercado a la playa?"),
        ("Como transferir do cartão para a conta?", "Como transferir da conta para o cartão?"),
    ),
    "verbatim": (
        ("What does print('hi') do?", "What does print('bye') do?"),
        ("select name from users where id == 1;", "select names from users where id == 1;"),
        (
            "Summarise: " + "the cat sat on the mat " * 15,
            "Summarise: " + "the cat sat on the mat " * 14 + "the dog sat there",
        ),
    ),
    "scope": (
        ("How do I stop a container?", "How do I stop all containers?"),
        ("Can I drive after the operation?", "Can I drive before the operation?"),
        ("Can I appeal?", "Should I appeal?"),
        ("Wie stoppe ich einen Dienst?", "Wie stoppe ich alle Dienste?"),
        ("What is the first step?", "What is the last step?"),
        ("Delete all my photos", "Delete some of my photos"),
        ("How much is at least needed?", "How much is at most needed?"),
        ("Must I tip the driver?", "Can I tip the driver?"),
        ("How do I cook rice?", "How do I cook rice for toddlers?"),
        ("Qual é o primeiro passo?", "Qual é o último passo?"),
        ("How do I iterate over a map?", "How do I iterate over a nested map?"),
        ("How do I print a list?", "How do I print a list of lists?"),
        ("¿Cómo se paga la matrícula?", "¿Cómo se paga la matrícula de los becarios?"),
        ("Como faço para pagar o plano?", "Como faço para pagar o plano anual?"),
        ("Combien de temps dure un film ?", "Combien de temps dure la pause d'un film ?"),
        ("Brauche ich ein Visum für Kanada?", "Brauche ich ein Visum, um in Kanada zu arbeiten?"),
    ),
    "delivery": (
        ("Explain gravity", "Explain gravity in Spanish"),
        ("List the planets", "List the planets as JSON"),
        ("Explain gravity in one sentence", "Explain gravity in detail"),
        ("Explique a gravidade", "Explique a gravidade em inglês"),
        ("Explique a gravidade em uma frase", "Explique a gravidade detalhadamente"),
    ),
    "question": (
        ("Can I freeze soup?", "How long can I freeze soup?"),
        ("What is a token?", "How do I get a token?"),
        ("Can hamsters eat basil?", "My hamster ate basil, what should I do?"),
        ("O que preciso para tirar o visto?", "Quanto custa tirar o visto?"),
        ("Why did the war begin?", "When did the war begin?"),
        ("Where can I vote?", "When can I vote?"),
        ("How do I renew my passport?", "How long does it take to renew a passport?"),
        ("Por que o céu é azul?", "Quando o céu é azul?"),
        ("¿Por qué flota el hielo?", "¿Cuándo flota el hielo?"),
        ("What is the difference between oil and gas heating?", "Which is cheaper, oil or gas heating?"),
        ("Was ist der Unterschied zwischen Tee und Kaffee?", "Was ist besser, Tee oder Kaffee?"),
        ("How do mules differ from horses?", "What do mules and horses have in common?"),
        ("Bis wann muss ich mich anmelden?", "Wie muss ich mich anmelden?"),
        ("De combien le loyer augmente ?", "Pourquoi le loyer augmente ?"),
        ("Can I deduct the fees?", "How do I deduct the fees?"),
        ("What is the speed limit?", "Can the speed limit be raised?"),
        ("What are student fees?", "How much are student fees?"),
        ("Where does digestion take place?", "Explain the process of digestion"),
        ("Must I say why I am late?", "Must I say that I am late?"),
        ("Plato was a pupil of whom?", "Who was Plato's pupil?"),
    ),
    "persons": (
        ("What is my credit limit?", "What is your credit limit?"),
        ("How old is she?", "How old is he?"),
        ("Who is the president?", "Who was the president?"),
        ("Can I collect the parcel?", "Can someone else collect the parcel?"),
        ("Can my tenant sublet without my consent?", "Can I sublet without my tenant's consent?"),
        ("O inquilino pode sair sem meu aviso?", "Posso sair sem aviso do inquilino?"),
        ("Mon locataire peut-il vendre mes meubles ?", "Puis-je vendre les meubles de mon locataire ?"),
    ),
    "language": (
        ("Come posso cambiare la password?", "Come posso scegliere la password?"),
        ("東京の天気はどうですか", "大阪の天気はどうですか"),
        ("How do I reset my password?", "Como faço para redefinir minha senha?"),
        ("Как сбросить пароль?", "Как придумать пароль?"),
        ("Jaké jsou příznaky chřipky?", "Jaké příznaky má chřipka?"),
        ("Kuinka vaihdan salasanan?", "Kuinka poistan salasanan?"),
    ),
}

PASSED: tuple[tuple[str, str], ...] = (
    ("How many minutes should I boil pasta?", "How long should I boil pasta?"),
    ("What happens if I miss an exam?", "I missed an exam, what happens next?"),
    ("How long does a patent last?", "What is the term of a patent?"),
    ("Hay vuelos de Bilbao a Oporto", "Hay vuelos desde Bilbao hasta Oporto"),
    ("How do I read a file in Go?", "What's the way to read files in Go?"),
    ("Kann ich die Reise noch ändern?", "Kann ich die Reise ändern?"),
    ("What is the boiling point of acetone?", "What's acetone's boiling point?"),
    ("How do I reset my password?", "how do i reset my pasword"),
    ("How do I reset my password?", "What's the best way to reset my password?"),
    ("How do I reset my password?", "Please tell me how to recover my password, thanks!"),
    ("Book a table for two at 7pm", "Book a table for 2 at 19:00"),
    ("Turn off the living room lights", "Please switch the living room lights off"),
    ("Flights from Boston to Denver", "Flights to Denver from Boston"),
    ("Did Brazil beat Argentina?", "Was Argentina beaten by Brazil?"),
    ("What is 1,000 USD in euros?", "What is $1000 in euros?"),
    ("Who was the first president of the USA?", "Who was the first US president?"),
    ("How can I stop rice from sticking?", "How do I cook rice that doesn't stick?"),
    ("Can my landlord raise the rent?", "My landlord wants to raise the rent, can he?"),
    ("Do Egyptians need a visa for Chile?", "Do I need a visa from Egypt to visit Chile?"),
    ("How do I trim a video?", "What's the easiest way to trim a video?"),
    ("Why does the door not close?", "Why does the door fail to close?"),
    ("Com quantos jogadores joga um time?", "Quantos jogadores tem um time?"),
    ("Como faço para desbloquear meu cartão?", "Qual é o procedimento para desbloquear o cartão?"),
    ("Qual é a capital da Austrália?", "Me diga a capital da Austrália, por favor"),
    ("Quando terminou a guerra?", "Em que ano acabou a guerra?"),
    ("¿Cómo cambio mi contraseña?", "¿De qué manera puedo cambiar la clave?"),
    ("Comment annuler ma commande ?", "Que dois-je faire pour annuler ma commande ?"),
    ("Wie kann ich mein Passwort ändern?", "Was muss ich tun, um mein Kennwort zu ändern?"),
    ("Come posso cambiare la password?", "come posso cambiare la password"),
    ("東京の天気はどうですか?", "東京の天気はどうですか"),
)


@pytest.mark.parametrize(("guard", "a", "b"), [(name, a, b) for name, table in REFUSED.items() for a, b in table])
def test_refuses(guard: str, a: str, b: str) -> None:
    assert GUARDS[guard](compare(a, b)) is not None


@pytest.mark.parametrize(("a", "b"), PASSED)
def test_lets_the_same_question_pass(a: str, b: str) -> None:
    assert refusal(compare(a, b)) is None


@pytest.mark.parametrize(("a", "b"), [pair for table in REFUSED.values() for pair in table])
def test_a_refusal_does_not_depend_on_which_was_stored(a: str, b: str) -> None:
    assert (refusal(compare(a, b)) is None) == (refusal(compare(b, a)) is None)


@given(st.text(max_size=200), st.text(max_size=200))
def test_no_text_makes_a_guard_raise(a: str, b: str) -> None:
    found = refusal(compare(a, b))
    assert found is None or found[0] in GUARDS


@given(st.text(alphabet=st.characters(categories=("L", "N", "Zs")), min_size=1, max_size=80))
def test_a_text_with_words_is_never_refused_against_itself(text: str) -> None:
    pair = compare(text, text)
    assert refusal(pair) is None or not pair.a.plain


@pytest.mark.parametrize("text", ["", " ", "\u200b", "???"])
def test_nothing_to_compare_is_refused_against_a_question(text: str) -> None:
    assert refusal(compare(text, "How do I reset my password?")) is not None
