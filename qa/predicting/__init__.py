"""The parts of the predictor: what is asked, how, of which reader, and how its spans become answers.

`qa.predictor.QuestionAnswerer` puts them together.
"""
