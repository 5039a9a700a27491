//! The demo catalogue: what `flashsale seed` creates without a file.

/// Kept as a sale file, so that it is read like any other and shows what one looks like.
pub(crate) const DEMO: &str = include_str!("demo.toml");

#[cfg(test)]
mod tests {
    use chrono::Utc;

    use super::*;

    #[test]
    fn the_demo_catalogue_is_a_sale_that_is_open() {
        let sale = crate::sale_file::parse(DEMO).unwrap();
        assert!(sale.starts_at < Utc::now() && Utc::now() < sale.ends_at);
        let shown = sale.products.iter().map(|product| {
            let id = product.id.map(flashsale_core::ProductId::get);
            let prices = (product.original_price.to_string(), product.sale_price.to_string());
            (id, product.name.as_str(), prices, product.stock, product.per_user_limit)
        });
        let prices = |original: &str, sale: &str| (original.to_owned(), sale.to_owned());
        assert!(shown.eq([
            (Some(1), "Sony WH-1000XM5 Headphones", prices("399.99", "249.99"), 500, 3),
            (Some(2), "Samsung Galaxy S24 Ultra", prices("1299.99", "899.99"), 200, 1),
            (Some(3), "Apple AirPods Pro (3rd Gen)", prices("249.99", "179.99"), 1000, 5),
        ]));
        assert_eq!(sale.currency.code(), "USD");
    }
}
