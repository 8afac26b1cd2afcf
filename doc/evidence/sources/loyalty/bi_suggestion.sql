select * from loyalty.bi_suggestion
