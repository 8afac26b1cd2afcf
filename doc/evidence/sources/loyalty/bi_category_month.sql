select * from loyalty.bi_category_month
